"""Figures: the limits and times that the documents name are those of the code."""

from pathlib import Path

import pytest

from gateway import pipeline
from services.delivery.dispatch import circuit_breaker, fair_rounds, lane_table, retry_policy
from services.delivery.subscriptions import freshness, revision_client
from services.delivery.transport import connection, exchange
from services.delivery.worker import backpressure, read_ahead, recorder
from services.eventlog import record
from services.runtime import api_key_cache, database, listing_reader, memory, steady_clock
from services.runtime.configuration.settings import DeliverySettings, GatewaySettings, IngestSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.http import admin
from services.runtime.rpc import call_guard, channel_and_server, channel_arguments, log_lines
from services.subscription.store import read_leases

ROOT = Path(__file__).parents[2]
DELIVERY = read_settings(DeliverySettings, {})
# Each sentence of a document, and the values of the code that make it true.
FIGURES: dict[str, tuple[tuple[object, object], ...]] = {
    "sent and not yet recorded (bounded by 1 200)": ((lane_table.UNRECORDED_SENT_MAX + fair_rounds.UNRECORDED_RESERVE, 1200),),
    "all 256 partitions are read in one pass": ((record.PARTITIONS, 256),),
    "One of the 256 parts of the log": ((record.PARTITIONS, 256),),
    "retention (168 hours by default": ((read_settings(IngestSettings, {}).ingest_retention_hours, 168),),
    "up to 100 ms for an attempt that has begun, and up to 0.6 s for a delivery whose turn has not come": (
        (recorder._WAIT_FOR_END_S, 0.1),
        (recorder._WAIT_FOR_TURN_S, 0.6),
    ),
    "routing stays a quarter of a second ahead of sending": ((backpressure._AHEAD_S, 0.25),),
    "busy, or was kept from running, for more than half of the time": ((backpressure._BUSY_SHARE, 0.5),),
    "A step of the wall clock counts once it has lasted for a minute": ((steady_clock.CONFIRM_S, 60),),
    "read lease of half a second": ((revision_client.LEASE_S, 0.5), (read_leases.LEASE_MAX_S, 0.5)),
    "the registry counts 50 ms longer": ((read_leases._MARGIN_S, 0.05),),
    "After a gap of more than a second": ((freshness.GAP_MAX_S, 1),),
    "the server holds at most 256 KB of it": ((channel_arguments.READ_AHEAD_BYTES, 256 * 1024),),
    "A consumer's requests beyond 32 at once wait for their turn, in order, up to 10 s": (
        (read_settings(GatewaySettings, {}).gateway_consumer_requests_max, 32),
        (pipeline._PERMIT_WITHIN_S, 10),
    ),
    "it looks through its file descriptors four times a second": ((call_guard.LOOK_EVERY_S, 0.25),),
    "at most ten a second; all other lines pass unchanged": ((log_lines.LINES_PER_S, 10),),
    "about 6 ms with one after every eighth commit": ((database.WalCheckpoints._COMMITS_BETWEEN, 8),),
    "use an answer of the registry for two seconds": ((api_key_cache.FRESH_S, 2),),
    "checks the key (cached for 2 s)": ((api_key_cache.FRESH_S, 2),),
    "A request is tried at up to three addresses of its name": ((exchange.ADDRESSES_DIALLED_MAX, 3),),
    "Each page ends after 50 ms or a number of rows": ((listing_reader.PAGE_S, 0.05),),
    "Every 10 s a process gives its free memory back if it has more than 32 MB": (
        (memory.GIVE_BACK_EVERY_S, 10),
        (memory.FREE_BYTES_MAX, 32 * 1024 * 1024),
    ),
    "checks its database at the start**, if the file has at most 64 MB": ((database._LOOKED_THROUGH_BYTES_MAX, 64 * 1024 * 1024),),
    "if the round trip takes more than half a millisecond": ((connection._NEAR_S, 0.0005),),
    "their requests must arrive within 10 s": ((channel_and_server._PUBLIC_REQUEST_S, 10),),
    "It opens after ten failures in a row of a sink": ((circuit_breaker.FAILURES_MAX, 10),),
    "up to twenty times the first": ((circuit_breaker._OPEN_MAX, 20),),
    "delays, jitter of ±50 %": ((retry_policy.JITTER, 0.5),),
    "Answer with any 2xx within 15 seconds": ((DELIVERY.delivery_attempt_timeout_seconds, 15),),
    "twelve more times over three days: after 5 s, 30 s, 2 min, 10 min, 30 min, 1 h, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h, each ±50 %": (
        (DELIVERY.delivery_retry_delays_seconds, (5, 30, 120, 600, 1800, *(hours * 3600 for hours in (1, 2, 5, 10, 14, 20, 24)))),
        (retry_policy.JITTER, 0.5),
    ),
    "`Retry-After` is honoured up to six hours": ((retry_policy.RETRY_AFTER_MAX_S, 6 * 3600),),
    "If a sink fails ten times in a row, a circuit breaker stops sending to it: for half a minute at first": (
        (circuit_breaker.FAILURES_MAX, 10),
        (DELIVERY.delivery_breaker_seconds, 30),
    ),
    "then twice as long each time, up to ten minutes": ((DELIVERY.delivery_breaker_seconds * circuit_breaker._OPEN_MAX, 600),),
    "One consumer may use an eighth of each at once": ((DELIVERY.consumer_share_percent, 12.5),),
    "The admin port keeps at most 64 connections, 32 from one address, and waits 5 s for headers": (
        (admin._LIMITS.connections_max, 64),
        (admin._LIMITS.network_connections_max, 32),
        (admin._LIMITS.headers_s, 5),
    ),
    "up to 1 000 records or 4 MiB": ((read_ahead.RECORDS_MAX, 1000), (read_ahead.BYTES_MAX, 4 * 1024 * 1024)),
}
# ruff: noqa: SLF001 - many figures are private constants


@pytest.mark.parametrize("sentence", FIGURES)
def test_a_figure_of_the_documents_is_the_code_s(sentence: str) -> None:
    text = " ".join(
        " ".join((ROOT / name).read_text(encoding="utf-8").split()) for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md")
    )
    assert sentence in text, "the documents no longer say this; change or remove the sentence here as well"
    for actual, said in FIGURES[sentence]:
        assert actual == said
