"""Renewed channel: a gRPC channel that uses new certificates as soon as a reload has read them.

tls → [renewed_channel] → stubs

Law: a call that begins after a renewal uses the new connections; a call in flight stays on its connection until it ends.
"""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from services.runtime.tls import ClientTls

# Longer than a server lets a connection live, so that the client cuts off no stream.
_OLD_KEPT_S = 35 * 60.0
# A closing channel takes no calls, not even a call whose interceptors have already begun.
_CLOSED_AFTER_S = 15.0
Open = Callable[[grpc.ChannelCredentials], grpc.aio.Channel]


class RenewedChannel(grpc.aio.Channel):
    """A channel over an inner channel, which is replaced each time that the certificates of `tls` change."""

    def __init__(self, tls: ClientTls, open_channel: Open) -> None:
        self._tls = tls
        self._open = open_channel
        self.current = open_channel(tls.credentials())
        """The inner channel of new calls."""
        self._ending: set[asyncio.Task[None]] = set()
        tls.on_renewal(self._renew)

    def _renew(self) -> None:
        old, self.current = self.current, self._open(self._tls.credentials())
        task = asyncio.get_running_loop().create_task(_end(old))  # owned: `close` ends it
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self, grace: float | None = None) -> None:
        """Close the current inner channel and the earlier ones; see `grpc.aio.Channel.close`."""
        with contextlib.suppress(ValueError):
            self._tls.forget(self._renew)
        for task in tuple(self._ending):
            task.cancel()
            await asyncio.wait([task])
        await self.current.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - as grpc declares it
        """See `grpc.aio.Channel.get_state`."""
        return self.current.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See `grpc.aio.Channel.wait_for_state_change`."""
        await self.current.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See `grpc.aio.Channel.channel_ready`."""
        await self.current.channel_ready()

    def unary_unary(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as grpc's own
        """See `grpc.aio.Channel.unary_unary`."""
        return _Method(self, lambda channel: channel.unary_unary(*arguments, **named))

    def unary_stream(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as grpc's own
        """See `grpc.aio.Channel.unary_stream`."""
        return _Method(self, lambda channel: channel.unary_stream(*arguments, **named))

    def stream_unary(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as grpc's own
        """See `grpc.aio.Channel.stream_unary`."""
        return _Method(self, lambda channel: channel.stream_unary(*arguments, **named))

    def stream_stream(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as grpc's own
        """See `grpc.aio.Channel.stream_stream`."""
        return _Method(self, lambda channel: channel.stream_stream(*arguments, **named))


class _Method:
    """A method of a stub; each call uses the channel that is current when it begins."""

    def __init__(self, owner: RenewedChannel, make: Callable[[grpc.aio.Channel], Any]) -> None:
        self._owner = owner
        self._make = make
        self._channel = owner.current
        self._method = make(self._channel)

    def __call__(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as grpc's own
        if self._channel is not self._owner.current:
            self._channel = self._owner.current
            self._method = self._make(self._channel)
        return self._method(*arguments, **named)


async def _end(channel: grpc.aio.Channel) -> None:
    """Close a channel once its calls have ended, or at once if this is cancelled."""
    try:
        await asyncio.sleep(_CLOSED_AFTER_S)
        await channel.close(_OLD_KEPT_S)
    finally:
        await channel.close(None)
