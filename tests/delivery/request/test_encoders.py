"""Encoders: a delivery keeps the encoder that made its first body, after a newer version has brought another encoder."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from services.delivery.model import ENCODER_VERSION, Content, ContentMode
from services.delivery.request.event_encoder import ENCODERS, content, encoded
from tests.delivery.system import State, System
from tests.support.events import cloud_event
from tests.support.waiting import until
from tests.support.webhook_receivers.receiver import Arrival, Receiver

OLDER, UNKNOWN = 0, 99


def older(raw: bytes, mode: ContentMode) -> Content:
    """Encode as an older version did: with another body and content type."""
    return Content({"content-type": "application/x-older"}, b"older " + content(raw, mode).body)


def age_rows(directory: Path, encoder: int) -> int:
    """Make the ledger's unfinished deliveries those of another encoder; return how many there are."""
    with contextlib.closing(sqlite3.connect(directory / "delivery.db")) as connection, connection:
        return connection.execute("UPDATE open SET encoder = ?", (encoder,)).rowcount


def test_new_deliveries_have_an_encoder() -> None:
    assert max(ENCODERS) == ENCODER_VERSION


async def test_a_stored_delivery_is_encoded_by_its_own_encoder_at_each_attempt(
    system: System, hooks: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new event meanwhile goes out by the present encoder."""

    def taken(event_id: str) -> list[Arrival]:
        return [hook for hook in hooks.arrivals if hook.event_id == event_id]

    monkeypatch.setitem(ENCODERS, OLDER, older)
    hooks.answer = lambda _hook: 500
    async with system.delivering() as delivery:
        await system.subscribe(hooks.url())
        (old,) = await system.publish(cloud_event("1"))
        await until(lambda: len(hooks.arrivals) > 0)
        await delivery.until(1, state=State.DELIVERY_STATE_PENDING)
    assert age_rows(tmp_path, OLDER) == 1

    before = len(hooks.arrivals)
    hooks.answer = lambda hook: 500 if hook.attempt < before + 3 else 200
    async with system.delivering() as delivery:
        (new,) = await system.publish(cloud_event("2"))
        await delivery.until(2, state=State.DELIVERY_STATE_DELIVERED)
    first, rest = hooks.arrivals[0], taken(old)[before:]
    assert [hook.attempt for hook in rest] == [before + 1, before + 2, before + 3]
    assert {hook.body for hook in rest} == {b"older " + first.body}
    assert {hook.headers["content-type"] for hook in rest} == {"application/x-older"}
    assert {hook.headers["content-type"] for hook in taken(new)} == {first.headers["content-type"]}


async def test_a_delivery_whose_encoder_is_unknown_ends_with_the_reason(system: System, hooks: Receiver, tmp_path: Path) -> None:
    """An older version has no encoder of a newer one, and another body under the same id would be a lie."""
    hooks.answer = lambda _hook: 500
    async with system.delivering() as delivery:
        await system.subscribe(hooks.url())
        await system.publish(cloud_event("1"))
        await until(lambda: len(hooks.arrivals) > 0)
        await delivery.until(1, state=State.DELIVERY_STATE_PENDING)
    assert age_rows(tmp_path, UNKNOWN) == 1
    before = len(hooks.arrivals)
    async with system.delivering() as delivery:
        (found,) = await delivery.until(1, state=State.DELIVERY_STATE_EXHAUSTED)
        assert "encoder 99, which this version does not have" in (await delivery.delivery(found.id)).attempts[-1].error
    assert len(hooks.arrivals) == before
    with pytest.raises(ValueError, match="encoder 99"):
        encoded(b"", ContentMode.BINARY, UNKNOWN)
