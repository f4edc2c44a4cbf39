"""Resealer: reseals all values in the background, at the start and whenever the secret keys change.

app → [resealer] → store → resealing

Law: other writes may run between any two steps, and a full disk only delays resealing.
"""

import asyncio
from functools import partial
from typing import Never

from prometheus_client import Gauge

from services.runtime.errors import Failure
from services.runtime.logs import logger
from services.subscription.store import resealing as store_resealing
from services.subscription.store import secret_keys
from services.subscription.store.store import Store
from services.subscription.store.transaction import Reading

_PAUSE_S = 0.005
_AGAIN_S = 5.0
_to_reseal = Gauge("hooktide_secrets_to_reseal", "Stored values that are still encrypted with an older secret key.")


class Resealer:
    """Reseals the values that older secret keys have sealed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wanted = asyncio.Event()
        self._wanted.set()

    def want(self) -> None:
        """Ask for another pass, since the secret keys have changed."""
        self._wanted.set()

    async def run(self) -> Never:
        """Make a pass each time that one is asked for, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._reseal_all()
            except Failure as failure:
                logger().warning("secrets.resealing_delayed", reason=failure.reason.name, next_s=_AGAIN_S)
                self._wanted.set()
                await asyncio.sleep(_AGAIN_S)

    async def _reseal_all(self) -> None:
        left = await self._store.read(_count)
        _to_reseal.set(left)
        if not left and not await self._store.read(lambda reading: secret_keys.without_check(reading.connection, reading.vault)):
            return
        logger().info("secrets.resealing", values=left)
        at: tuple[int, store_resealing.Position] | None = store_resealing.FIRST
        resealed = damaged = 0
        while at is not None:
            step = await self._store.write(partial(store_resealing.reseal_some, at=at))
            resealed, damaged, at = resealed + step.resealed, damaged + step.damaged, step.then
            _to_reseal.set(max(0, left - resealed - damaged))
            await asyncio.sleep(_PAUSE_S)
        _to_reseal.set(await self._store.read(_count))
        if damaged:
            logger().error("secrets.damaged", values=damaged, detail="they cannot be decrypted; the deliveries of their subscriptions wait")
        logger().info("secrets.resealed", values=resealed)


def _count(reading: Reading) -> int:
    older = secret_keys.uses(reading.connection, reading.vault.newest, reading.now_ms)
    return sum(use.signing_secrets + use.credentials + use.answers + use.api_keys for use in older)
