"""Channel arguments: the options of every gRPC server and channel, in one place.

gRPC silently ignores an option whose name it does not know. So a test looks for each name in the installed library.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REQUEST_BYTES_MAX = 4 * 1024 * 1024 + 64 * 1024
"""The largest request: 4 MiB of events and their framing."""
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
"""The largest answer."""
PING_INTERVAL_S = 30.0
# gRPC closes a connection whose peer pings more often. Half a client's interval leaves room for a ping that is late.
_PING_INTERVAL_PERMITTED_S = PING_INTERVAL_S / 2

_METADATA_BYTES_MAX = 8 * 1024
_CALLS_PENDING_MAX = 4_000
_CALLS_ENDING_MAX = 200
READ_AHEAD_BYTES = 256 * 1024
"""How much of a call the transport reads before the handler asks for it, even while the caller is unknown."""
# By default the transport would raise this limit as far as a fast peer can fill it: 24 emitters that were faster than the disk took
# 1.8 GB of ingest's memory within seconds.
_READ_AHEAD: list[tuple[str, int]] = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", READ_AHEAD_BYTES)]


@dataclass(frozen=True, slots=True)
class Connecting:
    """How many connections a server keeps, and how it notices dead or silent ones."""

    connections_max: int = 1024
    calls_per_connection_max: int = 100
    handshake_s: float = 10.0
    """How long a connection may take until HTTP/2 is agreed on."""
    ping_interval_s: float = PING_INTERVAL_S
    pings_permitted_s: float = _PING_INTERVAL_PERMITTED_S


def server_arguments(connecting: Connecting) -> list[tuple[str, int]]:
    """Return the options of a server."""
    return [
        *_READ_AHEAD,
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        # Nothing is decompressed: a few kilobytes of gzip could expand into the largest message. `Boundary` refuses compressed messages
        # once it knows the caller. If gRPC refused them (`grpc.compression_enabled_algorithms_bitset`), it would do so at once, and a
        # client that repeats such calls without a pause would fill the queue of calls.
        ("grpc.per_message_decompression", 0),
        ("grpc.max_allowed_incoming_connections", connecting.connections_max),
        ("grpc.max_concurrent_streams", connecting.calls_per_connection_max),
        # By default gRPC also counts calls that have ended and are not cleaned up yet, and so refuses a client that keeps to the limit.
        ("grpc.http2.max_deallocating_streams", _CALLS_ENDING_MAX),
        ("grpc.max_metadata_size", _METADATA_BYTES_MAX),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES_MAX),
        # By default (1 000 and 3 000) gRPC would cancel calls at random, honest ones too, once that many wait for a handler.
        ("grpc.server.max_pending_requests", _CALLS_PENDING_MAX),
        ("grpc.server.max_pending_requests_hard_limit", _CALLS_PENDING_MAX),
        ("grpc.server_handshake_timeout_ms", _ms(connecting.handshake_s)),
        # A client that uses a name with several addresses resolves the name again only when a connection ends.
        ("grpc.max_connection_age_ms", 30 * 60 * 1000),
        ("grpc.max_connection_age_grace_ms", 60 * 1000),
        ("grpc.keepalive_time_ms", _ms(connecting.ping_interval_s)),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(connecting.pings_permitted_s)),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def channel_arguments(retried: Sequence[str], *, ping_interval_s: float = PING_INTERVAL_S) -> list[tuple[str, Any]]:
    """Return the options of a channel; `retried` names idempotent methods (``package.Service/Method``)."""
    names = [dict(zip(("service", "method"), name.split("/"), strict=True)) for name in retried]
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": names, "retryPolicy": policy}] if names else [],
    }
    return [
        *_READ_AHEAD,
        ("grpc.service_config", json.dumps(config)),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        # Otherwise channels to one target would share their connections, and the backoff after a failed connection.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", _ms(ping_interval_s)),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
