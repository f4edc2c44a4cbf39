"""Certificates: a certificate authority for tests, with servers and clients that it certifies."""

import datetime as dt
import ssl
import warnings
from pathlib import Path

import trustme

from services.delivery.transport.protocol import Tls


class Authority:
    """A certificate authority; `file` holds its own certificate."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = folder / "roots.pem"
        self._ca.cert_pem.write_to_path(self.file)
        self.pem = self._ca.cert_pem.bytes()

    def server(
        self,
        *names: str,
        expired: bool = False,
        version_max: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        clients: "Authority | None" = None,
        client_needed: bool = True,
    ) -> ssl.SSLContext:
        """Return a TLS context for a server of these names; with `clients` the server asks for a client certificate of that authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        end = dt.datetime.now(dt.UTC) - dt.timedelta(days=1) if expired else None
        self._ca.issue_cert(*names, not_before=end - dt.timedelta(days=9) if end else None, not_after=end).configure_cert(context)
        with warnings.catch_warnings():
            # Deprecated versions of TLS are tested on purpose.
            warnings.simplefilter("ignore", DeprecationWarning)
            if version_max < ssl.TLSVersion.TLSv1_2:
                context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
                context.set_ciphers("ALL:@SECLEVEL=0")
            context.maximum_version = version_max
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED if client_needed else ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=clients.pem.decode())
        return context

    def client(self, name: str, ca_pem: bytes = b"") -> Tls:
        """Return what a request needs to present a client certificate."""
        made = self._ca.issue_cert(common_name=name)
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        return Tls(ca_pem, chain, made.private_key_pem.bytes())
