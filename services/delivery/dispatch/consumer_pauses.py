"""Consumer pauses: stop or resume all lanes of a consumer when the operator pauses or resumes the consumer.

registry_watch → [consumer_pauses] → lane_table, backlog, dispatcher

Law 1: from the call on, no attempt of a paused consumer starts, and attempts that have not begun are withdrawn, however many lanes it has.
Law 2: the lanes follow in short steps, so a consumer with ten thousand subscriptions keeps no other consumer waiting. A paused lane lets
its queue leave memory; a resumed lane asks for its waiting deliveries.
"""

import asyncio

from services.delivery.dispatch.dispatcher import Dispatcher
from services.delivery.dispatch.lane import Lane
from services.runtime.clock import Clock

# A step of 1 ms every 4 ms leaves everything else most of the time, and still ten thousand lanes follow within about a second.
_STEP_S, _EVERY_S = 0.001, 0.004


class ConsumerPauses:
    """The pauses of a worker's consumers, which the lanes follow."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._lanes = dispatcher.lanes
        self._clock = clock
        self._to_follow: dict[Lane, None] = {}  # bounded: each lane is in it once
        """The lanes that have not followed the latest change of their consumer."""
        self._timer: asyncio.Handle | None = None

    def change(self, consumer_id: str, *, paused: bool) -> None:
        """Pause a consumer, or resume it."""
        lanes = self._lanes.pause_consumer(consumer_id, paused=paused)
        if not lanes:
            return
        if paused:
            self._dispatcher.withdraw_all(consumer_id)
        else:
            self._dispatcher.attempts.resume(lanes[0].consumer)
        self._to_follow.update(dict.fromkeys(lanes))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._step)

    def close(self) -> None:
        """Let no more lanes follow."""
        self._to_follow.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _step(self) -> None:
        ends_at = self._clock.monotonic() + _STEP_S
        while self._to_follow and self._clock.monotonic() < ends_at:
            lane, _ = self._to_follow.popitem()
            if lane not in self._lanes:
                continue
            if lane.consumer.is_paused:
                self._dispatcher.backlog.put_away(lane)
            self._dispatcher.wake(lane)
            self._dispatcher.forget_if_idle(lane)
        self._dispatcher.pump()
        self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._step) if self._to_follow else None
