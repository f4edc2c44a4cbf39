"""Taken ids: gives deliveries the new ids under which the ledger has written them, because theirs belonged to other deliveries.

ledger → recorder → [taken_ids] → lane
"""

from collections.abc import Iterable, Mapping

from prometheus_client import Counter

from services.delivery.ledger.protocol import DeliveryKey
from services.delivery.model import Delivery
from services.runtime.ids import id_text
from services.runtime.logs import logger

_ids_taken = Counter("hooktide_delivery_ids_taken_total", "Deliveries that got another id, because theirs belonged to another delivery.")


def give_new_ids(deliveries: Iterable[Delivery], renamed: Mapping[DeliveryKey, bytes]) -> None:
    """Give deliveries the ids under which the ledger has written them."""
    for delivery in deliveries:
        new_id = renamed.get(DeliveryKey(delivery.event_id, delivery.subscription_id, delivery.job_id))
        if new_id is not None:
            logger().error(
                "delivery.id_taken",
                id=id_text("dlv", delivery.id),
                given=id_text("dlv", new_id),
                event_id=delivery.event_id,
                subscription=delivery.subscription_id,
                reason="another delivery has this id; this one got another id and is sent as usual",
            )
            _ids_taken.inc()
            delivery.id = new_id
