"""Rows: what is stored of attempts and events comes back unchanged."""

from collections.abc import Sequence

from services.delivery.ledger.rows import decode_attempts, decode_record, encode_record, open_row
from services.delivery.model import Attempt
from services.delivery.transport.protocol import Outcome
from tests.delivery.ledger.deliveries import delivery, record


def test_every_text_of_an_attempt_is_stored() -> None:
    attempts: Sequence[Attempt] = [Attempt(1, 2, outcome, 599, "für \x00 \U0001f600", "\ufffd" * 1024) for outcome in Outcome]
    assert decode_attempts(open_row(delivery(1, attempts=list(attempts))).attempts) == attempts


def test_an_event_is_stored_with_all_its_attributes() -> None:
    of = record(7)._replace(source="/ünï", audience="con_" + "0" * 32, event=bytes(range(256)))
    assert decode_record(encode_record(of)) == of
