"""Worker seats: what each of several workers owns: its sockets, and its share of the limits."""

from pathlib import Path

from services.runtime.configuration.settings import DeliverySettings
from services.runtime.service_process import WorkerSeat

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
