"""Fair queue: requests that wait for the same resource; owners take turns.

pool → [fair_queue]
"""

from collections import deque

from services.delivery.transport.exchange import Exchange


class FairQueue(dict[str, deque[Exchange]]):
    """The waiting requests by owner; the owner whose turn is next comes first. Every owner in the queue has at least one request."""

    def put(self, exchange: Exchange) -> None:
        """Add a request behind its owner's other requests."""
        owner = exchange.request.owner
        waiting = self.get(owner)
        if waiting is None:
            self[owner] = deque((exchange,))  # bounded: by the requests that callers have under way
        else:
            waiting.append(exchange)

    def take(self) -> Exchange:
        """Remove and return the request whose turn it is; raises `StopIteration` if the queue is empty."""
        owner = next(iter(self))
        waiting = self.pop(owner)
        exchange = waiting.popleft()
        if waiting:
            self[owner] = waiting
        return exchange

    def remove(self, exchange: Exchange) -> None:
        """Remove a request; raises `KeyError` or `ValueError` if it is not in the queue."""
        owner = exchange.request.owner
        waiting = self[owner]
        waiting.remove(exchange)
        if not waiting:
            del self[owner]

    def exchanges(self) -> list[Exchange]:
        """Return all waiting requests."""
        return [exchange for waiting in self.values() for exchange in waiting]
