"""Registry: a registry in memory under a test's control, and a gRPC channel to it for delivery's calls."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self

import grpc
from hooktide.subscription.v1 import subscription_pb2

from services.runtime.errors import STATUS_DETAILS_KEY, Failure, Reason, failure_status
from services.runtime.ids import slot_of
from services.subscription.store.read_leases import ReadLeases

ACTIVE = subscription_pb2.SUBSCRIPTION_STATE_ACTIVE
PAUSED = subscription_pb2.SUBSCRIPTION_STATE_PAUSED
DISABLED = subscription_pb2.SUBSCRIPTION_STATE_DISABLED
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@dataclass(frozen=True)
class Wish:
    """A subscription in the registry."""

    id: str
    consumer_id: str
    types: tuple[str, ...] = ()
    source: str = ""
    state: subscription_pb2.SubscriptionState.ValueType = ACTIVE
    sink: str = "https://consumer.example/hooks"
    revision: int = 0
    sink_revision: int = 0
    rate_per_second: float | None = None
    secret: str = SECRET
    token: str = ""
    """The access token of its credential; empty: no credential."""
    start_ms: int | None = None
    """From which time of acceptance on it wants past events; 0: all that the log has; None: no past events."""
    is_ordered: bool = False

    def message(self) -> subscription_pb2.WatchSubscriptionsResponse:
        """Return the message in which the watch sends this subscription."""
        subscription = subscription_pb2.Subscription(
            id=self.id,
            consumer_id=self.consumer_id,
            sink=self.sink,
            types=self.types,
            source=self.source,
            state=self.state,
            revision=self.revision,
            sink_revision=self.sink_revision,
            config=subscription_pb2.SubscriptionConfig(
                rate_per_second=self.rate_per_second,
                ordering=subscription_pb2.ORDERING_KEY if self.is_ordered else subscription_pb2.ORDERING_NONE,
            ),
        )
        if self.start_ms == 0:
            subscription.config.start.point = subscription_pb2.START_POINT_BEGINNING
        elif self.start_ms is not None:
            subscription.config.start.time.FromMilliseconds(self.start_ms)
        secrets = [subscription_pb2.SigningSecret(secret=self.secret)]
        watched = subscription_pb2.WatchedSubscription(subscription=subscription, secrets=secrets)
        if self.token:
            watched.sink_credential.access_token.CopyFrom(subscription_pb2.AccessTokenCredential(token=self.token, token_type="bearer"))
        return subscription_pb2.WatchSubscriptionsResponse(put=watched)


@dataclass(frozen=True)
class Copy:
    """What a registry had stored at some moment."""

    wishes: dict[str, Wish]
    paused_consumers: set[str]
    revision: int
    compacted: int
    ids: dict[int, str]
    changes: list[tuple[int, subscription_pb2.WatchSubscriptionsResponse]]


class RegistryOfTests:
    """Subscriptions, their changes, and a watch of the changes."""

    def __init__(self, pause: Callable[[], Awaitable[None]], loop: asyncio.AbstractEventLoop) -> None:
        """Await `pause` wherever a network would take time."""
        self._loop = loop
        self.leases = ReadLeases(loop, earlier_leases_possible=False)
        self.pause = pause
        self.wishes: dict[str, Wish] = {}
        self.revision = 1
        self.compacted = 1
        self._ids = {1: "first"}
        """The id of each change, by revision."""
        self.reachable = True
        self.hears_of_gone = True
        """Whether DisableSubscription succeeds, by which delivery reports that a sink is gone."""
        self.questions = 0
        """How many questions for its revision it has received."""
        self.stalled_until = 0.0
        """Until when the watch sends nothing, although it stays open and questions are answered."""
        self.restarted_at = 0.0
        """When it last became another process. A new process waits for the leases that the one before may have granted."""
        self.freezes = self.freezes_proven = 0
        """How often the worker was frozen, and how often it had been when it asked its latest question."""
        self.system_paused = False
        """Whether all deliveries are paused."""
        self.paused_consumers: set[str] = set()
        self.told_gone: list[str] = []
        """The subscription of each DisableSubscription call, in order."""
        self._changes_made = 0
        self._changes: list[tuple[int, subscription_pb2.WatchSubscriptionsResponse]] = []
        self._changed = asyncio.Event()

    def put(self, wish: Wish) -> Wish:
        """Create or change a subscription."""
        self._advance()
        before = self.wishes.get(wish.id)
        sink_revision = self.revision if before is None or before.sink != wish.sink else before.sink_revision
        wish = self.wishes[wish.id] = replace(wish, revision=self.revision, sink_revision=sink_revision)
        self._note(wish.message())
        return wish

    def delete(self, subscription_id: str) -> None:
        """Delete a subscription."""
        del self.wishes[subscription_id]
        self._advance()
        deleted = subscription_pb2.DeletedSubscription(id=subscription_id, revision=self.revision)
        self._note(subscription_pb2.WatchSubscriptionsResponse(deleted=deleted))

    def pause_system(self, *, paused: bool) -> int:
        """Pause or resume all deliveries; return the revision."""
        self.system_paused = paused
        self._advance()
        self._note(self._checkpoint(self.revision))
        return self.revision

    def pause_consumer(self, consumer_id: str, *, paused: bool) -> int:
        """Pause or resume a consumer; return the revision."""
        (self.paused_consumers.add if paused else self.paused_consumers.discard)(consumer_id)
        self._advance()
        self._note(_pause_message(consumer_id, paused=paused))
        return self.revision

    def _advance(self) -> None:
        """Take the next revision; the id of its change is new, even after an older copy was put back."""
        self.revision += 1
        self._changes_made += 1
        self._ids[self.revision] = f"change {self._changes_made}"

    def copied(self) -> "Copy":
        """Return what its disk holds."""
        return Copy(dict(self.wishes), set(self.paused_consumers), self.revision, self.compacted, dict(self._ids), list(self._changes))

    def put_back(self, copy: "Copy") -> None:
        """Become another process on an older copy of the store."""
        self.wishes, self.paused_consumers = dict(copy.wishes), set(copy.paused_consumers)
        self.revision, self.compacted = copy.revision, copy.compacted
        self._ids, self._changes = dict(copy.ids), list(copy.changes)
        self.restart()

    def compact(self) -> None:
        """Forget all changes: a watch that is behind needs a snapshot."""
        self.compacted = self.revision
        self._changes.clear()

    def set_reachable(self, *, reachable: bool) -> None:
        """Become unreachable, or reachable again."""
        self.reachable = reachable
        self._wake()

    def restart(self) -> None:
        """Become another process, which knows everything committed, but no calls and no leases."""
        self.leases = ReadLeases(self._loop, earlier_leases_possible=True)
        self.restarted_at = self._loop.time()
        self._wake()

    async def told(self, revision: int) -> None:
        """Return when the caller who made a revision has the answer; the caller asks again after each restart."""
        leases = None
        while leases is not self.leases:
            leases = self.leases
            await leases.wait_until_confirmed(revision)

    def _note(self, message: subscription_pb2.WatchSubscriptionsResponse) -> None:
        self._changes.append((self.revision, message))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def hear(self, asking: "_Asking", question: subscription_pb2.AskRevisionRequest) -> subscription_pb2.AskRevisionResponse | None:
        """Answer a question of AskRevision, or take a confirmation and return None."""
        freezes = self.freezes
        await self.pause()
        self._refuse_if_away(asking.leases)
        if question.confirms:
            asking.leases.confirm(asking, question.reached_revision)
            return None
        self.questions += 1
        self.freezes_proven = freezes
        if question.reached_change_id != self._ids.get(question.reached_revision, "") and question.reached_revision >= self.revision:
            raise _compacted()
        lease_s = asking.leases.grant(asking, question.reached_revision, question.lease.ToMilliseconds() / 1000, self.revision)
        answer = subscription_pb2.AskRevisionResponse(revision=self.revision)
        answer.lease.FromMilliseconds(int(lease_s * 1000))
        return answer

    async def disable(self, request: subscription_pb2.DisableSubscriptionRequest) -> subscription_pb2.DisableSubscriptionResponse:
        """Answer DisableSubscription."""
        await self.pause()
        self.told_gone.append(request.id)
        if not self.hears_of_gone:
            raise _rpc_error(Failure(Reason.UNAVAILABLE, "The registry is away."))
        wish = self.wishes[request.id]
        if wish.sink_revision != request.sink_revision:
            raise _rpc_error(Failure(Reason.ETAG_MISMATCH, "It has another sink now."))
        self.put(replace(wish, state=DISABLED))
        return subscription_pb2.DisableSubscriptionResponse()

    async def watch(
        self, request: subscription_pb2.WatchSubscriptionsRequest
    ) -> AsyncIterator[subscription_pb2.WatchSubscriptionsResponse]:
        """Answer WatchSubscriptions."""
        await self.pause()
        revision, leases = request.after_revision, self.leases
        # As the registry does: it compares no id if the watcher names none.
        if revision != 0 and (revision not in self._ids or request.after_change_id not in {"", self._ids[revision]}):
            raise _compacted()
        if revision == 0:
            revision = self.revision
            pauses = [_pause_message(consumer_id, paused=True) for consumer_id in sorted(self.paused_consumers)]
            for message in [*pauses, *[wish.message() for wish in self.wishes.values()]]:
                await self.pause()
                self._refuse_if_away(leases)
                yield message
            yield self._checkpoint(revision)
        while True:
            self._refuse_if_away(leases)
            if revision < self.compacted:
                raise _compacted()
            changes, changed = [change for change in self._changes if change[0] > revision], self._changed
            for revision, message in changes:  # noqa: B007 - the last one counts
                await self.pause()
                await asyncio.sleep(self.stalled_until - self._loop.time())
                self._refuse_if_away(leases)
                yield message
            yield self._checkpoint(revision)
            if not changes:
                await changed.wait()

    def _checkpoint(self, revision: int) -> subscription_pb2.WatchSubscriptionsResponse:
        checkpoint = subscription_pb2.Checkpoint(revision=revision, registry_id="registry", change_id=self._ids[revision])
        checkpoint.system_paused = self.system_paused
        return subscription_pb2.WatchSubscriptionsResponse(checkpoint=checkpoint)

    def _refuse_if_away(self, called: ReadLeases) -> None:
        """Fail the call if the registry is unreachable, or was restarted since the call began; a restarted registry has its own leases."""
        if not self.reachable or called is not self.leases:
            raise _rpc_error(Failure(Reason.UNAVAILABLE, "The registry is away."))


def _pause_message(consumer_id: str, *, paused: bool) -> subscription_pb2.WatchSubscriptionsResponse:
    pause = subscription_pb2.ConsumerPause(consumer_id=consumer_id, paused=paused)
    return subscription_pb2.WatchSubscriptionsResponse(consumer_pause=pause)


def _compacted() -> grpc.aio.AioRpcError:
    return _rpc_error(Failure(Reason.REVISION_COMPACTED, "Begin anew."))


def _rpc_error(failure: Failure) -> grpc.aio.AioRpcError:
    status = failure_status(failure)
    trailing = grpc.aio.Metadata((STATUS_DETAILS_KEY, status.SerializeToString()))
    return grpc.aio.AioRpcError(failure.reason.code, grpc.aio.Metadata(), trailing, failure.message, None)


async def _of_slots(
    messages: AsyncIterator[subscription_pb2.WatchSubscriptionsResponse], slots: Collection[int] | None
) -> AsyncIterator[subscription_pb2.WatchSubscriptionsResponse]:
    async for message in messages:
        subscription_id = message.put.subscription.id or message.deleted.id
        if slots is None or not subscription_id or slot_of(subscription_id) in slots:
            yield message


class _Watching:
    """A call of the watch."""

    def __init__(self, messages: AsyncIterator[subscription_pb2.WatchSubscriptionsResponse]) -> None:
        self._messages = messages

    def __aiter__(self) -> AsyncIterator[subscription_pb2.WatchSubscriptionsResponse]:
        return self._messages

    def cancel(self) -> bool:
        """End the call."""
        return True


class _Asking:
    """A call of AskRevision."""

    def __init__(self, registry: RegistryOfTests) -> None:
        self._registry = registry
        self.leases = registry.leases
        self._answer: subscription_pb2.AskRevisionResponse | None = None

    async def write(self, question: subscription_pb2.AskRevisionRequest) -> None:
        """Send a question or a confirmation."""
        self._answer = await self._registry.hear(self, question)

    async def read(self) -> subscription_pb2.AskRevisionResponse:
        """Return the answer."""
        await self._registry.pause()
        assert self._answer is not None
        return self._answer

    def cancel(self) -> bool:
        """End the call."""
        return True


class RegistryChannel(grpc.aio.Channel):
    """A channel to a registry of tests that serves the calls which delivery makes."""

    def __init__(self, registry: RegistryOfTests, slots: Collection[int] | None = None) -> None:
        """Show only the subscriptions of some slots (None: of all)."""
        self._registry = registry
        self._slots = slots

    def unary_unary(self, method: str, *_args: Any, **_options: Any) -> Any:
        """Return the callable for a stub."""

        async def call(request: Any, **_options: object) -> object:
            if not method.endswith("/DisableSubscription"):
                _unknown(method)
            return await self._registry.disable(request)

        return call

    def unary_stream(self, method: str, *_args: Any, **_options: Any) -> Any:
        """Return the callable for a stub."""
        if not method.endswith("/WatchSubscriptions"):
            _unknown(method)

        def call(request: subscription_pb2.WatchSubscriptionsRequest, **_options: object) -> _Watching:
            return _Watching(_of_slots(self._registry.watch(request), self._slots))

        return call

    def stream_unary(self, method: str, *_args: Any, **_options: Any) -> Any:
        """Refuse."""
        _unknown(method)

    def stream_stream(self, method: str, *_args: Any, **_options: Any) -> Any:
        """Return the callable for a stub."""
        if not method.endswith("/AskRevision"):
            _unknown(method)
        return lambda **_options: _Asking(self._registry)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Do nothing: nothing is open."""

    async def close(self, grace: float | None = None) -> None:
        """Do nothing: nothing is open."""

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - grpc's own signature
        """Return that the channel is ready."""
        del try_to_connect
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return at once."""

    async def channel_ready(self) -> None:
        """Return at once."""


def _unknown(method: str) -> NoReturn:
    message = f"{method} is not served here"
    raise AssertionError(message)
