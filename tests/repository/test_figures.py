"""Figures: the limits and times that the documents name are those of the code."""

from pathlib import Path

import pytest

from gateway import pipeline
from services.delivery.dispatch import circuit_breaker, lane_table, retry_policy
from services.delivery.subscriptions import freshness, revision_client
from services.delivery.transport import connection, exchange
from services.delivery.worker import backpressure, read_ahead, recorder
from services.eventlog import record
from services.runtime import api_key_cache, database, listing_reader, memory, steady_clock
from services.runtime.configuration.settings import GatewaySettings, IngestSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.rpc import call_guard, channel_and_server, channel_arguments, log_lines
from services.subscription.store import read_leases

ROOT = Path(__file__).parents[2]
# Each sentence of a document, and the values of the code that make it true.
FIGURES: dict[str, tuple[tuple[object, object], ...]] = {
    "sent and not yet recorded (bounded by 1 000)": ((lane_table.UNRECORDED_SENT_MAX, 1000),),
    "all 64 partitions are read in one pass": ((record.PARTITIONS, 64),),
    "One of the 64 parts of the log": ((record.PARTITIONS, 64),),
    "retention (168 hours by default": ((read_settings(IngestSettings, {}).ingest_retention_hours, 168),),
    "up to 50 ms for an attempt that has begun, and up to 0.6 s for a delivery whose turn has not come": (
        (recorder._WAIT_FOR_END_S, 0.05),
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
    "up to 1 000 records or 4 MiB": ((read_ahead.RECORDS_MAX, 1000), (read_ahead.BYTES_MAX, 4 * 1024 * 1024)),
}
# ruff: noqa: SLF001


@pytest.mark.parametrize("sentence", FIGURES)
def test_a_figure_of_the_documents_is_the_code_s(sentence: str) -> None:
    text = " ".join(" ".join((ROOT / name).read_text(encoding="utf-8").split()) for name in ("ARCHITECTURE.md", "CONTRIBUTING.md"))
    assert sentence in text, "the documents no longer say this; change or remove the sentence here as well"
    for actual, said in FIGURES[sentence]:
        assert actual == said
