"""Start bugs: mistakes in past starts that are easy to make, each put back into the real code; see `bugs.py`."""

from collections.abc import Callable

from services.delivery.ledger.rows import JobRow
from services.delivery.worker.past_starts import PastStarts
from tests.simulation.bug_scenarios import release_before_a_start_is_written, start_after_a_release
from tests.simulation.event_log import MemoryEventLog
from tests.simulation.playing import Scenario
from tests.simulation.range_bugs import Replace


def start_not_written_with_its_range(patch: Replace) -> None:
    """Only the worker's memory knows that a start has happened, so that it happens again after a restart."""

    def remember(self: PastStarts, row: JobRow) -> None:
        self._jobs[row.subscription_id] = row

    patch(PastStarts, "_write", remember)


def routed_before_its_start_is_over(patch: Replace) -> None:
    """Events are routed to a subscription while the place of its start is looked for."""
    see = PastStarts.see

    def see_and_route(self: PastStarts, subscription_id: str, routed: int) -> None:
        see(self, subscription_id, routed)
        if subscription_id in self._unfound:
            self._replica.router.return_to(subscription_id)

    patch(PastStarts, "see", see_and_route)


def released_before_its_start_is_written(patch: Replace) -> None:
    """Retention releases what a start needs, because no range shows it yet."""
    patch(PastStarts, "lowest", lambda _self: None)


def release_not_taken_back(patch: Replace) -> None:
    """The log may drop the events of a start, because they were released before."""

    async def rewind(_self: MemoryEventLog, _rewound: object) -> None:
        return

    patch(MemoryEventLog, "rewind", rewind)


START_BUGS: dict[Callable[[Replace], None], int | Scenario] = {
    start_not_written_with_its_range: 2,
    routed_before_its_start_is_over: 3,
    released_before_its_start_is_written: release_before_a_start_is_written,
    release_not_taken_back: start_after_a_release,
}
"""Each bug, and what is known to catch it: a seed or a directed scenario."""
