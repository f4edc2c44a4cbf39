"""Access server: AccessService over gRPC.

gateway, ingest ─gRPC─▶ [access_server] → validation → consumers, keys → store
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from hooktide.subscription.v1 import access_pb2 as pb
from hooktide.subscription.v1 import access_pb2_grpc

from services.runtime.api_key import parse_key
from services.runtime.errors import invalid_field
from services.runtime.paging import page_size, page_token, parse_page_token
from services.subscription.api import wire
from services.subscription.errors import key_invalid
from services.subscription.model import Consumer
from services.subscription.rules.pause import new_pause
from services.subscription.rules.validation import (
    consumer_name_problems,
    key_id_problems,
    key_problems,
    refuse,
    request_id_problems,
    required_problems,
)
from services.subscription.store import consumers, keys, secret_keys
from services.subscription.store.idempotency import answer_once
from services.subscription.store.store import Store
from services.subscription.store.transaction import Reading, Writing

Context = grpc.aio.ServicerContext[Any, Any]

_ADMINISTRATOR = "admin"
_CONSUMERS = "consumers"
_KEYS = "keys"
_KEYS_MAX = 200


class AccessServer(access_pb2_grpc.AccessServiceServicer):
    """Serves consumers and API keys."""

    def __init__(self, store: Store, events_kept_ms: Callable[[], int]) -> None:
        """`events_kept_ms` returns for how long an event that waits is kept after its acceptance."""
        self._store = store
        self._events_kept_ms = events_kept_ms

    async def Authenticate(self, request: pb.AuthenticateRequest, _context: Context) -> pb.AuthenticateResponse:
        """Return the API key of a clear text; refuse a malformed one without a query to the database."""
        if parse_key(request.key) is None:
            raise key_invalid()
        (found,) = await self._store.read(partial(keys.authenticate, clears=[request.key]))
        if found is None:
            raise key_invalid()
        return pb.AuthenticateResponse(key=wire.key_message(found))

    async def AuthenticateKeys(self, request: pb.AuthenticateKeysRequest, _context: Context) -> pb.AuthenticateKeysResponse:
        """Return the API keys of several clear texts, each empty if its clear text is not valid."""
        if not 1 <= len(request.keys) <= _KEYS_MAX:
            raise invalid_field("keys", f"give 1 to {_KEYS_MAX} keys")
        response = pb.AuthenticateKeysResponse()
        for found in await self._store.read(partial(keys.authenticate, clears=list(request.keys))):
            result = response.results.add()
            if found is not None:
                result.key.CopyFrom(wire.key_message(found))
        return response

    async def CreateConsumer(self, request: pb.CreateConsumerRequest, _context: Context) -> pb.CreateConsumerResponse:
        """Create a consumer."""
        call = wire.idempotent_call(request, _ADMINISTRATOR, "CreateConsumer")

        def create(writing: Writing) -> bytes:
            refuse([*consumer_name_problems(request.consumer.name), *request_id_problems(request.request_id)])
            created = consumers.create(writing, request.consumer.name)
            return pb.CreateConsumerResponse(consumer=wire.consumer_message(created)).SerializeToString()

        answer = await self._store.write(lambda writing: answer_once(writing, call, partial(create, writing)))
        return pb.CreateConsumerResponse.FromString(answer)

    async def GetConsumer(self, request: pb.GetConsumerRequest, _context: Context) -> pb.GetConsumerResponse:
        """Read one consumer."""
        refuse(required_problems("id", request.id))
        found = await self._store.read_confirmed(partial(consumers.get, consumer_id=request.id))
        return pb.GetConsumerResponse(consumer=wire.consumer_message(found))

    async def ListConsumers(self, request: pb.ListConsumersRequest, _context: Context) -> pb.ListConsumersResponse:
        """List consumers by id."""
        place = parse_page_token(_CONSUMERS, request.page_token, (str,))
        found, more = await self._store.read_confirmed(
            partial(consumers.page, after_id=str(place[0]) if place else "", size=page_size(request.page_size))
        )
        return pb.ListConsumersResponse(
            consumers=[wire.consumer_message(consumer) for consumer in found],
            next_page_token=page_token(_CONSUMERS, (found[-1].id,)) if more else "",
        )

    async def PauseConsumer(self, request: pb.PauseConsumerRequest, _context: Context) -> pb.PauseConsumerResponse:
        """Pause all subscriptions of a consumer."""
        refuse([*required_problems("id", request.id), *key_id_problems(request.key_id)])

        def pause(writing: Writing) -> Consumer:
            return consumers.pause(writing, request.id, new_pause(request.key_id, writing.now_ms, self._events_kept_ms()))

        return pb.PauseConsumerResponse(consumer=wire.consumer_message(await self._store.write(pause)))

    async def ResumeConsumer(self, request: pb.ResumeConsumerRequest, _context: Context) -> pb.ResumeConsumerResponse:
        """End the pause of a consumer."""
        refuse(required_problems("id", request.id))
        resumed = await self._store.write(partial(consumers.resume, consumer_id=request.id))
        return pb.ResumeConsumerResponse(consumer=wire.consumer_message(resumed))

    async def CreateKey(self, request: pb.CreateKeyRequest, _context: Context) -> pb.CreateKeyResponse:
        """Create a key."""
        draft = wire.key_draft(request.key)
        call = wire.idempotent_call(request, _ADMINISTRATOR, "CreateKey")

        def create(writing: Writing) -> bytes:
            refuse([*key_problems(draft, writing.now_ms), *request_id_problems(request.request_id)])
            created, clear = keys.create(writing, draft)
            return pb.CreateKeyResponse(key=wire.key_message(created), clear_text=clear).SerializeToString()

        answer = await self._store.write(lambda writing: answer_once(writing, call, partial(create, writing)))
        return pb.CreateKeyResponse.FromString(answer)

    async def GetKey(self, request: pb.GetKeyRequest, _context: Context) -> pb.GetKeyResponse:
        """Read one key."""
        refuse(required_problems("id", request.id))
        found = await self._store.read(partial(keys.get, key_id=request.id))
        return pb.GetKeyResponse(key=wire.key_message(found))

    async def ListKeys(self, request: pb.ListKeysRequest, _context: Context) -> pb.ListKeysResponse:
        """List keys by id."""
        place = parse_page_token(_KEYS, request.page_token, (str,))
        found, more = await self._store.read(partial(keys.page, after_id=str(place[0]) if place else "", size=page_size(request.page_size)))
        return pb.ListKeysResponse(
            keys=[wire.key_message(key) for key in found],
            next_page_token=page_token(_KEYS, (found[-1].id,)) if more else "",
        )

    async def RevokeKey(self, request: pb.RevokeKeyRequest, _context: Context) -> pb.RevokeKeyResponse:
        """Revoke a key for good."""
        refuse(required_problems("id", request.id))
        await self._store.write(partial(keys.revoke, key_id=request.id))
        return pb.RevokeKeyResponse()

    async def GetResealing(self, _request: pb.GetResealingRequest, _context: Context) -> pb.GetResealingResponse:
        """Return how many values still need each older secret key."""

        def look(reading: Reading) -> pb.GetResealingResponse:
            vault = reading.vault
            older = secret_keys.uses(reading.connection, vault.newest, reading.now_ms)
            unneeded = set(vault.secret_key_ids[1:]) - {use.secret_key_id for use in older}
            return pb.GetResealingResponse(
                newest_secret_key_id=vault.newest,
                older=[pb.SecretKeyUse(**dataclasses.asdict(use)) for use in older],
                unneeded_secret_key_ids=[name for name in vault.secret_key_ids if name in unneeded],
            )

        return await self._store.read(look)
