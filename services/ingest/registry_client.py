"""Registry client: asks the subscription service which keys are emitters' and which event types require an audience.

emitter_authorization → [registry_client] ─gRPC─▶ registry
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import grpc
from hooktide.subscription.v1 import access_pb2, access_pb2_grpc, catalogue_pb2, catalogue_pb2_grpc

from services.runtime.errors import Failure, Reason
from services.runtime.rpc.access import ServiceToken
from services.runtime.rpc.channel_and_server import service_metadata

RETRIED = (
    "hooktide.subscription.v1.AccessService/AuthenticateKeys",
    "hooktide.subscription.v1.CatalogueService/FindAudienceRequired",
)


@dataclass(frozen=True, slots=True)
class Emitter:
    """A key that may publish."""

    expires_unix_s: float | None


class RegistryClient:
    """Calls the registry; every call raises `Failure` UNAVAILABLE if it gives no answer."""

    def __init__(self, channel: grpc.aio.Channel, service_token: ServiceToken) -> None:
        self._metadata = service_metadata(service_token)
        self._access = access_pb2_grpc.AccessServiceStub(channel)
        self._catalogue = catalogue_pb2_grpc.CatalogueServiceStub(channel)

    async def emitters(self, keys: Sequence[str]) -> list[Emitter | Failure]:
        """Return for each key, in order, the emitter, or why the key may not publish: KEY_INVALID or ROLE_FORBIDDEN."""
        try:
            answer = await self._access.AuthenticateKeys(access_pb2.AuthenticateKeysRequest(keys=keys), metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _unavailable() from error
        return [_emitter_or_failure(result) for result in answer.results]

    async def audience_required(self, names: Collection[str]) -> Sequence[str]:
        """Return those of the event types `names` whose events must name an audience."""
        request = catalogue_pb2.FindAudienceRequiredRequest(names=names)
        try:
            answer = await self._catalogue.FindAudienceRequired(request, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _unavailable() from error
        return answer.names


def _emitter_or_failure(result: access_pb2.AuthenticatedKey) -> Emitter | Failure:
    if not result.HasField("key"):
        return Failure(Reason.KEY_INVALID, "This API key is unknown, expired or revoked; send a valid key.")
    if result.key.role != access_pb2.ROLE_EMITTER:
        return Failure(Reason.ROLE_FORBIDDEN, "This API key has another role; publish with a key of the role emitter.")
    return Emitter(result.key.expire_time.ToNanoseconds() / 1e9 if result.key.HasField("expire_time") else None)


def _unavailable() -> Failure:
    """Return the failure for a registry that gives no answer. It hides the cause, which does not concern the emitter."""
    return Failure(Reason.UNAVAILABLE, "The registry of keys and event types is unavailable; send the events again.", retry_after_s=1.0)
