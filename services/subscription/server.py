"""Server: SubscriptionService over gRPC.

gateway, delivery ─gRPC─▶ [server] → validation → store

Law: every call says for which consumer it acts, and sees no other's.
"""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
from hooktide.subscription.v1 import subscription_pb2 as pb
from hooktide.subscription.v1 import subscription_pb2_grpc

from services.egress.policy import EgressPolicy
from services.runtime.errors import FieldError
from services.runtime.paging import page_size, page_token, parse_page_token
from services.subscription import store_subscriptions as subscriptions
from services.subscription import wire
from services.subscription.model import ConsumerId
from services.subscription.signing_secret import new_secret
from services.subscription.store import Store
from services.subscription.store_answers import answered
from services.subscription.transaction import Writing
from services.subscription.validation import (
    OVERLAP_DEFAULT_MS,
    consumer_problems,
    mask_problems,
    overlap_problems,
    owner_problems,
    refuse,
    request_id_problems,
    required_problems,
    secret_problems,
    subscription_problems,
)
from services.subscription.watch import watch

Context = grpc.aio.ServicerContext[Any, Any]


class SubscriptionServer(subscription_pb2_grpc.SubscriptionServiceServicer):
    """Keeps subscriptions."""

    def __init__(self, store: Store, policy: EgressPolicy) -> None:
        self._store = store
        self._policy = policy

    async def CreateSubscription(self, request: pb.CreateSubscriptionRequest, _context: Context) -> pb.CreateSubscriptionResponse:
        """Create a subscription."""
        draft = wire.subscription_draft(request.subscription)
        once = wire.once_from(request, request.consumer_id, "CreateSubscription")

        def create(writing: Writing) -> bytes:
            refuse(
                [
                    *owner_problems(request.consumer_id),
                    *subscription_problems(draft, self._policy),
                    *secret_problems(request.secret),
                    *request_id_problems(request.request_id),
                ]
            )
            created, secret = subscriptions.create(writing, ConsumerId(request.consumer_id), draft, request.secret or new_secret())
            answer = pb.CreateSubscriptionResponse(subscription=wire.subscription_message(created), secret=wire.secret_message(secret))
            return answer.SerializeToString()

        answer = await self._store.write(lambda writing: answered(writing, once, partial(create, writing)))
        return pb.CreateSubscriptionResponse.FromString(answer)

    async def GetSubscription(self, request: pb.GetSubscriptionRequest, _context: Context) -> pb.GetSubscriptionResponse:
        """Read one subscription."""
        refuse([*consumer_problems(request.consumer_id), *required_problems("id", request.id)])
        found = await self._store.read(partial(subscriptions.get, scope=request.consumer_id, subscription_id=request.id))
        return pb.GetSubscriptionResponse(subscription=wire.subscription_message(found))

    async def ListSubscriptions(self, request: pb.ListSubscriptionsRequest, _context: Context) -> pb.ListSubscriptionsResponse:
        """List subscriptions by id."""
        refuse(consumer_problems(request.consumer_id))
        kind = f"subscriptions/{request.consumer_id}"
        place = parse_page_token(kind, request.page_token, (str,))
        found, more = await self._store.read(
            partial(
                subscriptions.page, scope=request.consumer_id, after_id=str(place[0]) if place else "", size=page_size(request.page_size)
            )
        )
        return pb.ListSubscriptionsResponse(
            subscriptions=[wire.subscription_message(subscription) for subscription in found],
            next_page_token=page_token(kind, (found[-1].id,)) if more else "",
        )

    async def UpdateSubscription(self, request: pb.UpdateSubscriptionRequest, _context: Context) -> pb.UpdateSubscriptionResponse:
        """Change the masked fields."""
        paths = list(request.update_mask.paths)
        draft = wire.subscription_draft(request.subscription)
        refuse(
            [
                *consumer_problems(request.consumer_id),
                *required_problems("subscription.id", request.subscription.id),
                *mask_problems(paths),
                *subscription_problems(draft, self._policy, paths),
            ]
        )

        def update(writing: Writing) -> pb.UpdateSubscriptionResponse:
            current = subscriptions.get(writing, request.consumer_id, request.subscription.id)
            subscriptions.check_etag(current, request.etag)
            changed = subscriptions.update(writing, current, draft, paths)
            return pb.UpdateSubscriptionResponse(subscription=wire.subscription_message(changed))

        return await self._store.write(update)

    async def DeleteSubscription(self, request: pb.DeleteSubscriptionRequest, _context: Context) -> pb.DeleteSubscriptionResponse:
        """Delete a subscription."""
        refuse([*consumer_problems(request.consumer_id), *required_problems("id", request.id)])

        def delete(writing: Writing) -> pb.DeleteSubscriptionResponse:
            current = subscriptions.get(writing, request.consumer_id, request.id)
            subscriptions.check_etag(current, request.etag)
            return pb.DeleteSubscriptionResponse(revision=subscriptions.delete(writing, current))

        return await self._store.write(delete)

    async def GetSecrets(self, request: pb.GetSecretsRequest, _context: Context) -> pb.GetSecretsResponse:
        """Read the live secrets."""
        refuse([*consumer_problems(request.consumer_id), *required_problems("subscription_id", request.subscription_id)])
        found = await self._store.read(
            lambda reading: subscriptions.secrets(reading, subscriptions.get(reading, request.consumer_id, request.subscription_id))
        )
        return pb.GetSecretsResponse(secrets=[wire.secret_message(secret) for secret in found])

    async def RotateSecret(self, request: pb.RotateSecretRequest, _context: Context) -> pb.RotateSecretResponse:
        """Put a new secret in place."""
        overlap_ms = wire.duration_ms(request.overlap) if request.HasField("overlap") else OVERLAP_DEFAULT_MS
        once = wire.once_from(request, request.consumer_id, "RotateSecret")

        def rotate(writing: Writing) -> bytes:
            refuse(
                [
                    *consumer_problems(request.consumer_id),
                    *required_problems("subscription_id", request.subscription_id),
                    *secret_problems(request.secret),
                    *overlap_problems(overlap_ms),
                    *request_id_problems(request.request_id),
                ]
            )
            current = subscriptions.get(writing, request.consumer_id, request.subscription_id)
            secret = subscriptions.rotate(writing, current, request.secret or new_secret(), overlap_ms)
            return pb.RotateSecretResponse(secret=wire.secret_message(secret)).SerializeToString()

        answer = await self._store.write(lambda writing: answered(writing, once, partial(rotate, writing)))
        return pb.RotateSecretResponse.FromString(answer)

    async def GetRevision(self, _request: pb.GetRevisionRequest, _context: Context) -> pb.GetRevisionResponse:
        """Return the latest committed revision, without asking the database."""
        return pb.GetRevisionResponse(revision=self._store.revision)

    async def WatchSubscriptions(
        self, request: pb.WatchSubscriptionsRequest, _context: Context
    ) -> AsyncIterator[pb.WatchSubscriptionsResponse]:
        """Stream every change after a revision."""
        if request.after_revision < 0:
            refuse([FieldError("after_revision", "must be 0 for a snapshot, or the revision of a checkpoint")])
        async with contextlib.aclosing(watch(self._store, request.after_revision, request.registry_id)) as items:
            async for item in items:
                yield wire.watch_message(item)
