"""Fair queue: requests that wait for the same resource; owners take turns.

pool → [fair_queue]
"""

from collections import deque

from services.delivery.transport.exchange import Flight


class FairQueue(dict[str, deque[Flight]]):
    """The waiting requests by owner; the owner whose turn is next comes first. Every owner in the queue has at least one request."""

    def put(self, flight: Flight) -> None:
        """Add a request behind its owner's other requests."""
        owner = flight.request.owner
        waiting = self.get(owner)
        if waiting is None:
            self[owner] = deque((flight,))
        else:
            waiting.append(flight)

    def take(self) -> Flight:
        """Remove and return the request whose turn it is; raises `StopIteration` if there is none."""
        owner = next(iter(self))
        waiting = self.pop(owner)
        flight = waiting.popleft()
        if waiting:
            self[owner] = waiting
        return flight

    def remove(self, flight: Flight) -> None:
        """Remove a request; raises `KeyError` or `ValueError` if it is not in the queue."""
        owner = flight.request.owner
        waiting = self[owner]
        waiting.remove(flight)
        if not waiting:
            del self[owner]

    def flights(self) -> list[Flight]:
        """Return all waiting requests."""
        return [flight for waiting in self.values() for flight in waiting]
