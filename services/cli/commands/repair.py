"""Repair: `hooktide repair` makes delivery continue after it has stopped because log and ledger do not fit together."""

import asyncio
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from services.cli.commands.emit import checked_time
from services.cli.defaults import DATA_DIR, AsJson, DataDir
from services.cli.errors import CommandError
from services.cli.output import say, say_json
from services.cli.service_client import Repair, service_client, service_target
from services.cli.tls import CaFile


def repair(
    from_time: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Route the events accepted from this time on, for example 2030-01-31T12:00:00Z; by default the events that the "
            "ledger has not routed.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", envvar="HOOKTIDE_DELIVERY_TARGET", help="The delivery service's address, host:port.", show_default=False
        ),
    ] = "",
    ca: CaFile = None,
    data_dir: DataDir = DATA_DIR,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start delivery again where it stopped because the event log or the ledger was deleted or restored from an older copy.

    The command first shows how many events are routed. Some of them may have been routed before: consumers may get these again, with the
    same ids. The services keep running. Needs the service token.
    """
    from_ = None if from_time is None else checked_time("--from", from_time)
    to = service_target("delivery", target, data_dir)

    def call(*, dry: bool) -> Repair:
        return asyncio.run(_call(to, from_, ca, data_dir, dry_run=dry))

    plan = call(dry=True)
    if not as_json:
        _say(plan)
    if dry_run or not plan.stopped:
        if as_json:
            say_json(_as_json(plan, repaired=False))
        return
    if not yes and (as_json or not sys.stdin.isatty()):
        raise CommandError("nothing was changed; give --yes to repair, or --dry-run to see only what would be done", code=2)
    if not yes and not typer.confirm("Repair the routing?"):
        raise CommandError("nothing was changed")
    done = call(dry=False)
    if as_json:
        say_json(_as_json(done, repaired=True))
    else:
        say(f"Repaired: {done.routed_events} events are being routed.")


async def _call(target: str, from_time: datetime | None, ca: Path | None, data_dir: Path, *, dry_run: bool) -> Repair:
    async with service_client("delivery", target, ca, data_dir) as client:
        return await client.repair_routing(from_time, dry_run=dry_run)


def _say(plan: Repair) -> None:
    if not plan.stopped:
        say("Routing is not stopped, so there is nothing to repair.")
        return
    say(f"Delivery has stopped: {plan.stopped}.")
    say("A repair does this:")
    say(f"  {plan.routed_events:>9}  events are routed")
    say(f"  {plan.repeated_events:>9}  of these were routed before and may be delivered again")
    say(f"  {plan.skipped_events:>9}  events that were never routed are skipped")
    say(f"  {plan.lost_deliveries:>9}  unfinished deliveries end as exhausted, because the log no longer has their events")


def _as_json(told: Repair, *, repaired: bool) -> dict[str, object]:
    return {
        "stopped": told.stopped or None,
        "routed_events": told.routed_events,
        "repeated_events": told.repeated_events,
        "skipped_events": told.skipped_events,
        "lost_deliveries": told.lost_deliveries,
        "repaired": repaired,
    }
