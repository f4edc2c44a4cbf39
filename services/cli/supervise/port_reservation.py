"""Port reservation: reserves free ports, so that all addresses are known before any service starts.

While a socket is bound and does not listen, the kernel gives its port to no process that asks for a free one. On Linux a service that
names the port can still bind it. On other systems it could not, so there the port is only chosen and not held.
"""

import contextlib
import dataclasses
import socket
import sys

from services.runtime.service_process import Addresses, cannot_listen


class Reservations:
    """The ports held by one supervisor."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()

    def settle(self, addresses: Addresses) -> Addresses:
        """Return the addresses with a free port in place of each port 0."""
        return dataclasses.replace(addresses, listen=self._settled(addresses.listen), admin=self._settled(addresses.admin))

    def release(self) -> None:
        """Release all ports."""
        self._held.close()

    def _settled(self, address: str) -> str:
        host, _, port = address.rpartition(":")
        if port != "0" or address.startswith("unix:"):
            return address
        try:
            family, _, _, _, bare = socket.getaddrinfo(host.strip("[]"), 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            holder = self._held.enter_context(socket.socket(family, socket.SOCK_STREAM))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(bare)
        except OSError as error:
            raise cannot_listen(address, error) from error
        chosen = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        return f"{host}:{chosen}"
