"""Worker seats: what each of several workers owns: its interval of the slots, its sockets, its ledger file, and its share of the limits."""

from pathlib import Path

from services.runtime.configuration.settings import WORKERS_MAX, DeliverySettings
from services.runtime.ids import SLOTS
from services.runtime.service_process import StartError, WorkerSeat

# Limits for all workers together. What is left out is a limit for one subscription, which belongs to one worker, or for one call.
_DIVIDED = (
    "delivery_connections_max",
    "delivery_host_connections_max",
    "delivery_in_flight_max",
    "delivery_token_calls_max",
    "delivery_test_events_max",
    "delivery_handshakes_max",
    "delivery_tls_contexts_max",
    "delivery_ledger_bytes_max",
    "sink_lookups_max",
)


def slots_of_worker(number: int, workers: int) -> range:
    """Return the slots that a worker owns, of several that divide all slots."""
    return range(SLOTS * number // workers, SLOTS * (number + 1) // workers)


def worker_of_slot(slot: int, workers: int) -> int:
    """Return the number of the worker that owns a slot."""
    return ((slot + 1) * workers - 1) // SLOTS


def relay_socket(sockets: Path) -> str:
    """Return the address at which the parent relays the log."""
    return f"unix:{sockets / 'log.sock'}"


def worker_socket(seat: WorkerSeat) -> str:
    """Return the gRPC address of a worker."""
    return f"unix:{seat.sockets / f'delivery-{seat.number}.sock'}"


def admin_socket(seat: WorkerSeat) -> str:
    """Return the admin address of a worker."""
    return f"unix:{seat.sockets / f'admin-{seat.number}.sock'}"


def settings_of_worker(settings: DeliverySettings, seat: WorkerSeat) -> DeliverySettings:
    """Return the settings of one worker: its own addresses, which only its parent reaches, and its share of each limit, at least one."""
    shares = {name: max(1, getattr(settings, name) // settings.delivery_workers) for name in _DIVIDED}
    addresses = {
        "delivery_listen": worker_socket(seat),
        "delivery_admin_listen": admin_socket(seat),
        "admin_tls_cert_file": None,
        "admin_tls_key_file": None,
        "admin_tls_client_ca_file": None,
    }
    return settings.model_copy(update=shares | addresses)


def ledger_file(database: Path, number: int) -> Path:
    """Return a worker's ledger file: the database itself for worker 0, and files beside it for the others."""
    return database if number == 0 else database.with_name(f"{database.stem}-{number}{database.suffix}")


def refuse_other_cut(database: Path, workers: int) -> None:
    """Raise `StartError` if the ledger files were written by another number of workers."""
    found = [number for number in range(WORKERS_MAX) if ledger_file(database, number).exists()]
    if found and found != list(range(workers)):
        message = (
            f"the ledgers beside {database} are those of the workers {', '.join(map(str, found))}, and the setting is "
            f"HOOKTIDE_DELIVERY_WORKERS={workers}; set it to {found[-1] + 1}, or put the missing files back"
        )
        raise StartError(message)
