"""Fair queue: requests that wait for the same thing, owners in turn.

pool → [fair_queue]
"""

from collections import deque

from services.delivery.transport.exchange import Flight


class FairQueue(dict[str, deque[Flight]]):
    """The requests by owner; that whose turn is next comes first. No owner stands in it without a request."""

    def put(self, flight: Flight) -> None:
        """Queue a request behind the others of its owner."""
        owner = flight.request.owner
        waiting = self.get(owner)
        if waiting is None:
            self[owner] = deque((flight,))
        else:
            waiting.append(flight)

    def take(self) -> Flight:
        """Take out the request whose turn it is; raises `StopIteration` if there is none."""
        owner = next(iter(self))
        waiting = self.pop(owner)
        flight = waiting.popleft()
        if waiting:
            self[owner] = waiting
        return flight

    def remove(self, flight: Flight) -> None:
        """Take out a request; raises `KeyError` or `ValueError` if it is not there."""
        owner = flight.request.owner
        waiting = self[owner]
        waiting.remove(flight)
        if not waiting:
            del self[owner]

    def flights(self) -> list[Flight]:
        """Return all requests that wait."""
        return [flight for waiting in self.values() for flight in waiting]
