"""Subscription server: SubscriptionService over gRPC.

gateway, delivery ─gRPC─▶ [subscription_server] → validation → subscriptions, verifications, watch → store

Law: every call about subscriptions names its scope, and reaches no subscription outside it. Delivery's own calls have none: it serves all.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import grpc
from hooktide.subscription.v1 import subscription_pb2 as pb
from hooktide.subscription.v1 import subscription_pb2_grpc

from services.egress.policy import EgressPolicy
from services.runtime.consumer_scope import Everyone
from services.runtime.errors import FieldError
from services.runtime.ids import SLOTS
from services.runtime.paging import fitting, page_size, page_token, parse_page_token
from services.subscription.api import wire, wire_settings
from services.subscription.errors import revision_compacted
from services.subscription.model import OPERATOR, OWNER, ConsumerId, ResumePoint, Scheme, Verification, VerificationPolicy
from services.subscription.rules.pause import new_pause
from services.subscription.rules.settings_validation import start_change_problems, start_problems
from services.subscription.rules.signing_key import new_private_key, short_private_key
from services.subscription.rules.signing_secret import new_secret
from services.subscription.rules.sink_lookup import SinkLookup
from services.subscription.rules.validation import (
    OVERLAP_DEFAULT_MS,
    detail_problems,
    mask_problems,
    merge_draft,
    overlap_problems,
    owner_problems,
    rate_problems,
    reason_problems,
    refuse,
    request_id_problems,
    required_problems,
    secret_problems,
    subscription_problems,
    valid_scope,
)
from services.subscription.store import changes as store_changes
from services.subscription.store import credentials as store_credentials
from services.subscription.store import subscriptions, verifications
from services.subscription.store.idempotency import answer_once
from services.subscription.store.store import Store
from services.subscription.store.transaction import Writing
from services.subscription.store.watch import watch

Context = grpc.aio.ServicerContext[Any, Any]


class SubscriptionServer(subscription_pb2_grpc.SubscriptionServiceServicer):
    """Serves subscriptions, their secrets, their sink verification and their watch."""

    def __init__(
        self,
        store: Store,
        egress_policy: EgressPolicy,
        sink_lookup: SinkLookup,
        verification_policy: VerificationPolicy,
        events_kept_ms: Callable[[], int],
    ) -> None:
        """`events_kept_ms` returns for how long an event that waits is kept after its acceptance."""
        self._store = store
        self._events_kept_ms = events_kept_ms
        self._egress_policy = egress_policy
        self._sink_lookup = sink_lookup
        self._verification_policy = verification_policy

    async def CreateSubscription(self, request: pb.CreateSubscriptionRequest, _context: Context) -> pb.CreateSubscriptionResponse:
        """Create a subscription."""
        draft = wire.subscription_draft(request.subscription)
        refusals = await self._sink_lookup.refusals(draft.urls(), request.consumer_id)
        call = wire.idempotent_call(request, request.consumer_id, "CreateSubscription")

        def create(writing: Writing) -> bytes:
            refuse(
                [
                    *owner_problems(request.consumer_id),
                    *subscription_problems(draft, self._egress_policy, refusals),
                    *start_problems(draft.config.start, writing.now_ms),
                    *secret_problems(request.secret),
                    *request_id_problems(request.request_id),
                ]
            )
            owner, secret = ConsumerId(request.consumer_id), request.secret or new_secret()
            created, first = subscriptions.create(writing, owner, draft, secret, self._verification_policy)
            answer = pb.CreateSubscriptionResponse(
                subscription=wire.subscription_message(created), secret=wire_settings.signing_secret_message(first)
            )
            return answer.SerializeToString()

        answer = await self._store.write(lambda writing: answer_once(writing, call, partial(create, writing)))
        return pb.CreateSubscriptionResponse.FromString(answer)

    async def GetSubscription(self, request: pb.GetSubscriptionRequest, _context: Context) -> pb.GetSubscriptionResponse:
        """Read one subscription."""
        scope = valid_scope(request.consumer_id, required_problems("id", request.id))
        found = await self._store.read_confirmed(partial(subscriptions.get, scope=scope, subscription_id=request.id))
        return pb.GetSubscriptionResponse(subscription=wire.subscription_message(found))

    async def ListSubscriptions(self, request: pb.ListSubscriptionsRequest, _context: Context) -> pb.ListSubscriptionsResponse:
        """List subscriptions by id."""
        scope = valid_scope(request.consumer_id, [])
        kind = f"subscriptions/{scope.text}"
        place = parse_page_token(kind, request.page_token, (str,))
        found, more = await self._store.read_confirmed(
            partial(subscriptions.page, scope=scope, after_id=str(place[0]) if place else "", size=page_size(request.page_size))
        )
        messages = [wire.subscription_message(subscription) for subscription in found]
        shown = messages[: fitting(message.ByteSize() for message in messages)]
        more = more or len(shown) < len(messages)
        return pb.ListSubscriptionsResponse(subscriptions=shown, next_page_token=page_token(kind, (shown[-1].id,)) if more else "")

    async def UpdateSubscription(self, request: pb.UpdateSubscriptionRequest, _context: Context) -> pb.UpdateSubscriptionResponse:
        """Change the masked fields."""
        paths = list(request.update_mask.paths)
        wanted = wire.subscription_draft(request.subscription)
        scope = valid_scope(request.consumer_id, [*required_problems("subscription.id", request.subscription.id), *mask_problems(paths)])
        refusals = await self._sink_lookup.refusals(wanted.urls(paths), scope.text)

        def update(writing: Writing) -> pb.UpdateSubscriptionResponse:
            current = subscriptions.get(writing, scope, request.subscription.id)
            subscriptions.check_etag(current, request.etag)
            draft = merge_draft(current, store_credentials.load(writing, current), wanted, paths)
            refuse(
                [
                    *subscription_problems(draft, self._egress_policy, refusals, paths),
                    *start_change_problems(current.config, draft.config),
                ]
            )
            changed = subscriptions.update(writing, current, draft, paths, self._verification_policy)
            return pb.UpdateSubscriptionResponse(subscription=wire.subscription_message(changed))

        return await self._store.write(update)

    async def DeleteSubscription(self, request: pb.DeleteSubscriptionRequest, _context: Context) -> pb.DeleteSubscriptionResponse:
        """Delete a subscription."""
        scope = valid_scope(request.consumer_id, required_problems("id", request.id))

        def delete(writing: Writing) -> pb.DeleteSubscriptionResponse:
            current = subscriptions.get(writing, scope, request.id)
            subscriptions.check_etag(current, request.etag)
            return pb.DeleteSubscriptionResponse(revision=subscriptions.delete(writing, current))

        return await self._store.write(delete)

    async def GetSecrets(self, request: pb.GetSecretsRequest, _context: Context) -> pb.GetSecretsResponse:
        """Read the live secrets."""
        scope = valid_scope(request.consumer_id, required_problems("subscription_id", request.subscription_id))
        found = await self._store.read_confirmed(
            lambda reading: subscriptions.secrets(reading, subscriptions.get(reading, scope, request.subscription_id))
        )
        return pb.GetSecretsResponse(secrets=wire_settings.signing_secrets(found), keys=wire_settings.signing_keys(found))

    async def RotateSecret(self, request: pb.RotateSecretRequest, _context: Context) -> pb.RotateSecretResponse:
        """Add a new signing secret or signing key; those in use expire after the overlap."""
        overlap_ms = wire_settings.duration_ms(request.overlap) if request.HasField("overlap") else OVERLAP_DEFAULT_MS
        scheme = wire_settings.scheme_of(request.scheme, request.secret)
        call = wire.idempotent_call(request, request.consumer_id, "RotateSecret")

        def rotate(writing: Writing) -> bytes:
            scope = valid_scope(
                request.consumer_id,
                [
                    *required_problems("subscription_id", request.subscription_id),
                    *secret_problems(request.secret, scheme),
                    *overlap_problems(overlap_ms),
                    *request_id_problems(request.request_id),
                ],
            )
            current = subscriptions.get(writing, scope, request.subscription_id)
            if scheme is Scheme.V1A:
                private = short_private_key(request.secret) if request.secret else new_private_key()
                key = subscriptions.rotate(writing, current, scheme, private, overlap_ms)
                return pb.RotateSecretResponse(key=wire_settings.signing_key_message(key)).SerializeToString()
            secret = subscriptions.rotate(writing, current, Scheme.V1, request.secret or new_secret(), overlap_ms)
            return pb.RotateSecretResponse(secret=wire_settings.signing_secret_message(secret)).SerializeToString()

        answer = await self._store.write(lambda writing: answer_once(writing, call, partial(rotate, writing)))
        return pb.RotateSecretResponse.FromString(answer)

    async def PauseSubscription(self, request: pb.PauseSubscriptionRequest, _context: Context) -> pb.PauseSubscriptionResponse:
        """Pause a subscription."""
        scope = valid_scope(request.consumer_id, required_problems("id", request.id))

        def pause(writing: Writing) -> pb.PauseSubscriptionResponse:
            current = subscriptions.get(writing, scope, request.id)
            new = new_pause(OPERATOR if isinstance(scope, Everyone) else OWNER, writing.now_ms, self._events_kept_ms())
            return pb.PauseSubscriptionResponse(subscription=wire.subscription_message(subscriptions.pause(writing, current, new)))

        return await self._store.write(pause)

    async def ResumeSubscription(self, request: pb.ResumeSubscriptionRequest, _context: Context) -> pb.ResumeSubscriptionResponse:
        """End a subscription's pause, or enable it again."""
        scope = valid_scope(request.consumer_id, required_problems("id", request.id))

        def resume(writing: Writing) -> pb.ResumeSubscriptionResponse:
            current = subscriptions.get(writing, scope, request.id)
            changed = subscriptions.resume(writing, current, self._verification_policy)
            return pb.ResumeSubscriptionResponse(subscription=wire.subscription_message(changed))

        return await self._store.write(resume)

    async def DisableSubscription(self, request: pb.DisableSubscriptionRequest, _context: Context) -> pb.DisableSubscriptionResponse:
        """Disable a subscription whose sink is gone or has failed for too long."""
        refuse([*required_problems("id", request.id), *reason_problems(request.reason)])
        changed = await self._store.write(
            partial(subscriptions.disable, subscription_id=request.id, sink_revision=request.sink_revision, reason=request.reason)
        )
        return pb.DisableSubscriptionResponse(subscription=wire.subscription_message(changed))

    async def BeginVerification(self, request: pb.BeginVerificationRequest, _context: Context) -> pb.BeginVerificationResponse:
        """Begin a sink verification (the handshake)."""
        scope = valid_scope(request.consumer_id, required_problems("subscription_id", request.subscription_id))

        def begin(writing: Writing) -> pb.BeginVerificationResponse:
            current = subscriptions.get(writing, scope, request.subscription_id)
            token = verifications.begin(writing, current, self._verification_policy)
            put = store_changes.put_of(writing, current)
            return pb.BeginVerificationResponse(subscription=wire.watched_message(put, self._verification_policy), callback_token=token)

        return await self._store.write(begin)

    async def ReportVerification(self, request: pb.ReportVerificationRequest, _context: Context) -> pb.ReportVerificationResponse:
        """Store a sink's answer to the handshake."""
        consent = wire_settings.consent_of(request.verification)
        rate = wire_settings.rate_of(request.verification)
        refuse(
            [
                *required_problems("subscription_id", request.subscription_id),
                *([] if consent else [FieldError("verification.state", "must be a state other than VERIFICATION_STATE_UNSPECIFIED")]),
                *rate_problems("verification.rate_per_minute", rate),
                *detail_problems("verification.detail", request.verification.detail),
            ]
        )
        assert consent is not None  # noqa: S101 - refused before

        def report(writing: Writing) -> pb.ReportVerificationResponse:
            answer = Verification(consent, rate, request.verification.detail, writing.now_ms)
            changed = verifications.report(writing, request.subscription_id, request.sink_revision, answer, self._verification_policy)
            return pb.ReportVerificationResponse(subscription=wire.subscription_message(changed))

        return await self._store.write(report)

    async def ConfirmVerification(self, request: pb.ConfirmVerificationRequest, _context: Context) -> pb.ConfirmVerificationResponse:
        """Store a consent that a sink gave by the callback URL."""
        rate = wire_settings.rate_of(request)
        refuse([*required_problems("token", request.token), *rate_problems("rate_per_minute", rate)])
        # Anyone may send tokens. This read refuses wrong tokens, so that guesses do not occupy the writer.
        await self._store.read(partial(verifications.find, token=request.token))
        await self._store.write(partial(verifications.confirm, token=request.token, rate_per_minute=rate, policy=self._verification_policy))
        return pb.ConfirmVerificationResponse()

    async def GetRevision(self, _request: pb.GetRevisionRequest, _context: Context) -> pb.GetRevisionResponse:
        """Return the latest committed revision, without a query to the database."""
        return pb.GetRevisionResponse(revision=(await self._store.latest_point()).revision)

    async def AskRevision(
        self, request_iterator: AsyncIterator[pb.AskRevisionRequest], _context: Context
    ) -> AsyncIterator[pb.AskRevisionResponse]:
        """Answer each question with the latest committed revision, and perhaps a read lease; raise UNAVAILABLE once the registry stops."""
        questions, holder, leases = aiter(request_iterator), object(), self._store.leases
        over = asyncio.ensure_future(self._store.until_watching_ends())  # owned: ended below
        asked: asyncio.Future[pb.AskRevisionRequest | None] | None = None
        try:
            while True:
                asked = asyncio.ensure_future(anext(questions, None))  # owned: ended below
                await asyncio.wait((asked, over), return_when=asyncio.FIRST_COMPLETED)
                if over.done():
                    await over
                question = asked.result()
                if question is None:
                    # The holder ended its stream, so it no longer relies on the lease. If a stream breaks off, its holder still may.
                    leases.release(holder)
                    return
                if question.confirms:
                    leases.confirm(holder, question.reached_revision)
                    continue
                latest = await self._store.latest_point()
                _check_slots(question.slots)
                if not _is_known(question, latest):
                    raise revision_compacted()
                # If a commit is under way, grant no lease: a reader may see its change while this answer still counts as current.
                wanted_s = 0.0 if self._store.commit_under_way else question.lease.ToMilliseconds() / 1000
                lease_s = leases.grant(holder, question.reached_revision, wanted_s, latest.revision)
                yield wire.revision_message(latest.revision, lease_s)
        finally:
            over.cancel()
            if asked is not None:
                asked.cancel()

    async def WatchSubscriptions(
        self, request: pb.WatchSubscriptionsRequest, _context: Context
    ) -> AsyncIterator[pb.WatchSubscriptionsResponse]:
        """Stream every change after a revision."""
        if request.after_revision < 0:
            refuse([FieldError("after_revision", "must be 0, for a snapshot, or the revision of a checkpoint")])
        _check_slots(request.slots)
        after = ResumePoint(request.after_revision, request.after_change_id)
        async with contextlib.aclosing(watch(self._store, after, request.registry_id, request.slots)) as items:
            async for item in items:
                yield wire.watch_message(item, self._verification_policy)


def _check_slots(slots: Sequence[int]) -> None:
    if len(set(slots)) < len(slots) or not all(0 <= slot < SLOTS for slot in slots):
        refuse([FieldError("slots", f"name slots from 0 to {SLOTS - 1}, each only once; leave it empty for all")])


def _is_known(question: pb.AskRevisionRequest, latest: ResumePoint) -> bool:
    """Return whether an asker may share this registry's history. If the asker is behind, its watch checks the history."""
    if question.reached_revision == latest.revision:
        return question.reached_change_id in {"", latest.change_id}
    return question.reached_revision < latest.revision
