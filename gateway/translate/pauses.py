"""Pauses: translates the operator's pauses, of a consumer and of the system, from the contract to JSON."""

from hooktide.subscription.v1 import system_pb2 as pb

from gateway.translate.timestamps import time_json


def pause_json(pause: pb.Pause) -> dict[str, object]:
    """Return a pause: since when, by which key, and until when the events that are accepted from then on are kept at least."""
    return {"at": time_json(pause.time), "by": pause.key_id, "events_kept_until": time_json(pause.kept_until_time)}


def system_json(system: pb.System) -> dict[str, object]:
    """Return the state of the system; `pause` is null while deliveries are not paused."""
    return {"pause": pause_json(system.pause) if system.HasField("pause") else None}
