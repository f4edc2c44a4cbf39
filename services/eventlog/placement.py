"""Placement: which events belong together, so that one partition has them and a subscription may get them in order.

event_validation → [placement] → partition; order_key → [placement] → lane

Law: pure, and it must never change: positions and stored keys follow from it.
"""


def placement(own_id: str, source: str, partition_key: str | None, subject: str | None) -> str:
    """Return the text that events of one place share: the partition key, else source and subject, else the event's own id."""
    if partition_key:
        return partition_key
    return f"{source}\x00{subject}" if subject else own_id
