"""Tiny settings: limits so small that the simulated worker reaches all of them all the time."""

import functools
import random
import tempfile
from pathlib import Path

from services.runtime.configuration.settings import DeliverySettings
from services.runtime.configuration.settings_reader import read_settings

DELAYS_S = (0.5, 1.0, 4.0, 20.0)


def settings_of_tests(directory: Path, **values: str) -> DeliverySettings:
    """Return tiny settings; `values` override some of them."""
    environ = {
        "HOOKTIDE_DATA_DIR": str(directory),
        "HOOKTIDE_SERVICE_TOKEN": "t" * 32,
        "HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": ",".join(str(delay) for delay in DELAYS_S),
        "HOOKTIDE_DELIVERY_IN_FLIGHT_MAX": "8",
        "HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX": "4",
        "HOOKTIDE_DELIVERY_LANE_PENDING_MAX": "5",
        "HOOKTIDE_DELIVERY_BREAKER_SECONDS": "2",
        "HOOKTIDE_HOUSEKEEPING_SECONDS": "60",
    }
    return read_settings(DeliverySettings, environ | values)


def seeded_settings(seed: int) -> DeliverySettings:
    """Return the settings of a seeded run; they name no directory of its own, since a worker gets its stores opened."""
    chance = random.Random(seed)
    return _read(chance.choice((4, 8, 64)), chance.choice((1, 3, 16)), chance.choice((1, 3, 5, 40)))


def directed_settings() -> DeliverySettings:
    """Return the settings of a directed run: a lane has one request under way and may queue a few deliveries."""
    return _read(8, 1, 5)


@functools.cache
def _read(in_flight: int, lane_in_flight: int, lane_pending: int) -> DeliverySettings:
    # To read settings takes a tenth of a short run.
    return settings_of_tests(
        Path(tempfile.gettempdir()),
        HOOKTIDE_DELIVERY_IN_FLIGHT_MAX=str(in_flight),
        HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX=str(lane_in_flight),
        HOOKTIDE_DELIVERY_LANE_PENDING_MAX=str(lane_pending),
    )
