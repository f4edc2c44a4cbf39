"""Content type: says which content types of an event's data are JSON.

ingest checks such data, delivery writes it into the body as it is, and the gateway shows it so.

Law: pure. Delivery's bodies depend on this rule, so a change of it needs a new encoder.
"""

import re

_JSON_TYPE = re.compile(r"(?:[\w.+-]+/(?:[\w.-]+\+)?json)\s*(?:;.*)?", re.IGNORECASE)


def is_json(content_type: str) -> bool:
    """Return whether data of this content type is JSON. An empty content type means JSON, as in CloudEvents' JSON format (3.1)."""
    return content_type in {"", "application/json"} or _JSON_TYPE.fullmatch(content_type) is not None
