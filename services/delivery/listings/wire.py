"""Wire: reads requests for deliveries, and writes deliveries and attempts as messages of the contract.

delivery_listings → [wire] → server, front_server
"""

from hooktide.delivery.v1 import delivery_pb2

from services.delivery.ledger.protocol import Listing
from services.delivery.ledger.rows import DoneRow, OpenRow, decode_attempts
from services.delivery.listings.rowless import Item, Rowless
from services.delivery.model import Attempt, State
from services.runtime.errors import Failure, Reason, invalid_field
from services.runtime.ids import id_text
from services.runtime.paging import page_size, page_token, parse_page_token
from services.runtime.rpc.requested_scope import requested_scope
from services.runtime.rpc.timestamps import optional_ms


def listing_of(request: delivery_pb2.ListDeliveriesRequest) -> Listing:
    """Return the page that a call asks for. Raises `Failure` if its scope, its state or its page token is wrong."""
    scope, before_id = requested_scope(request.consumer_id), before_id_of(request.page_token)
    if request.state not in delivery_pb2.DeliveryState.values():
        raise invalid_field("state", "is not a state of a delivery")
    return Listing(
        before_id=before_id,
        limit=page_size(request.page_size),
        scope=scope,
        state=State(request.state) if request.state else None,
        subscription_id=request.subscription_id,
        event_id=request.event_id,
        event_type=request.event_type,
        start_ms=optional_ms(request, "start_time"),
        end_ms=optional_ms(request, "end_time"),
    )


def page_token_before(before_id: bytes | None) -> str:
    """Return the token of the page with lower ids than this; empty for None, after the last page."""
    return "" if before_id is None else page_token("deliveries", (before_id.hex(),))


def before_id_of(token: str) -> bytes | None:
    """Return the id that a page token names; None for an empty one. Raises `Failure` PAGE_TOKEN_INVALID."""
    place = parse_page_token("deliveries", token, (str,))
    try:
        return None if place is None else bytes.fromhex(str(place[0]))
    except ValueError:
        raise Failure(
            Reason.PAGE_TOKEN_INVALID, "This list did not return this page token; leave it out to begin at the first page."
        ) from None


def delivery_message(item: Item, clock_jumped_ms: int, *, with_attempts: bool = False) -> delivery_pb2.Delivery:
    """Return a delivery as a message; `clock_jumped_ms` is how far the wall clock has jumped since the ledger was created."""
    if isinstance(item, Rowless):
        return _rowless_message(item)
    message = _row_message(item, clock_jumped_ms)
    if with_attempts:
        for number, attempt in enumerate(decode_attempts(item.attempts), 1):
            fill_attempt(message.attempts.add(), number, attempt)
    return message


def fill_attempt(message: delivery_pb2.Attempt, number: int, attempt: Attempt) -> None:
    """Write an attempt into its message."""
    message.number, message.outcome, message.status = number, delivery_pb2.AttemptOutcome.ValueType(attempt.outcome), attempt.status
    message.error, message.response_body = attempt.error, attempt.body
    message.start_time.FromMilliseconds(attempt.started_ms)
    message.duration.FromMilliseconds(attempt.duration_ms)


def _rowless_message(item: Rowless) -> delivery_pb2.Delivery:
    message = _message(item, item.state)
    message.waiting = item.state is State.PENDING
    if item.time_ms is not None:
        (message.expire_time if message.waiting else message.finish_time).FromMilliseconds(item.time_ms)
    return message


def _row_message(row: OpenRow | DoneRow, clock_jumped_ms: int) -> delivery_pb2.Delivery:
    message = _message(row, State.PENDING if isinstance(row, OpenRow) else State(row.state))
    message.attempt_count, message.last_status = row.attempt_count, row.last_status
    if isinstance(row, OpenRow):
        if row.due_ms:
            message.next_attempt_time.FromMilliseconds(row.due_ms + clock_jumped_ms)
    else:
        message.finish_time.FromMilliseconds(row.finished_ms)
    return message


def _message(item: Item, state: State) -> delivery_pb2.Delivery:
    """Return a message with the fields that every delivery has, with or without a row."""
    message = delivery_pb2.Delivery(
        id=id_text("dlv", item.id),
        event_id=item.event_id,
        subscription_id=item.subscription_id,
        consumer_id=item.consumer_id,
        event_type=item.event_type,
        state=delivery_pb2.DeliveryState.ValueType(state),
        partition=item.partition,
        position=item.position,
    )
    message.event_time.FromMilliseconds(item.accepted_ms)
    return message
