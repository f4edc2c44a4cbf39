"""Requested scope: reads the scope that a caller names in a request."""

from services.runtime.consumer_scope import Scope, parse_scope
from services.runtime.errors import invalid_field


def requested_scope(consumer_id: str) -> Scope:
    """Return the scope that a request's `consumer_id` names; raises `Failure` INVALID_ARGUMENT if it names none."""
    try:
        return parse_scope(consumer_id)
    except ValueError as error:
        raise invalid_field("consumer_id", str(error)) from None
