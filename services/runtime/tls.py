"""TLS: the certificates and authorities of listeners and of calls between services; SIGHUP reads them anew.

settings → certificates → [tls] → gRPC server, HTTP server, channels

Law 1: TLS 1.2 is the minimum. If client authorities are set, a client without a certificate from one of them is refused.
Law 2: a new connection uses the files as they were last read; an open connection goes on.
Law 3: the settings at the start decide whether there is TLS; no reload turns it off.
"""

import asyncio
import datetime as dt
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import grpc
from prometheus_client import Gauge

from services.runtime import certificates
from services.runtime.certificates import NamedFile, Pair, read_authorities, read_pair
from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.reload import Apply, Kind, Reloadable
from services.runtime.configuration.settings_reader import variable
from services.runtime.service_process import StartError

_expires = Gauge(
    "hooktide_tls_certificate_expires_seconds", "Expiry time of the certificate in use, in seconds since 1970, by its setting.", ["setting"]
)


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of a listener or of outgoing calls: optionally a certificate with its key, and optionally authorities."""

    pair: tuple[NamedFile, NamedFile] | None
    authorities: NamedFile | None

    @classmethod
    def of(cls, settings: Settings, before: str, authorities: str) -> Self:
        """Return the files that the settings name; raises `StartError` for a certificate without a key, or a key without a certificate."""
        cert, key, trusted = (_file(settings, f"{before}tls_{name}_file") for name in ("cert", "key", authorities))
        if (cert is None) != (key is None):
            given, missing = ("cert", "key") if key is None else ("key", "cert")
            names = (variable(f"{before}tls_{missing}_file"), variable(f"{before}tls_{given}_file"))
            raise StartError(f"{names[0]} is missing, but {names[1]} is set; set both or neither")
        return cls(None if cert is None or key is None else (cert, key), trusted)

    def read(self) -> "_Read":
        """Read and check the files; raises `StartError`."""
        now = dt.datetime.now(dt.UTC)
        pair = None if self.pair is None else read_pair(*self.pair, now)
        return _Read(pair, b"" if self.authorities is None else read_authorities(self.authorities, now))

    def note_expiry(self, read: "_Read") -> None:
        """Set the metric of the certificate's expiry."""
        if self.pair is not None and read.pair is not None:
            _expires.labels(self.pair[0].variable).set(read.pair.expires.timestamp())


@dataclass(frozen=True, slots=True)
class _Read:
    pair: Pair | None
    authorities_pem: bytes


class ServerTls:
    """TLS of one listener."""

    def __init__(self, files: _Files, read: _Read) -> None:
        assert read.pair is not None  # noqa: S101 - `server_tls` ensures it
        self._files = files
        self._read = read
        self._context = _http_context(read)
        files.note_expiry(read)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of a gRPC server; each handshake uses the newest certificate."""
        told = self._read

        def newest() -> "grpc.ServerCertificateConfiguration | None":
            nonlocal told
            if told is self._read:
                return None
            told = self._read
            return _grpc_configuration(told)

        is_needed = bool(self._read.authorities_pem)
        return grpc.dynamic_ssl_server_credentials(
            _grpc_configuration(self._read),
            newest,  # type: ignore[arg-type]  # the stubs lack None, which keeps the present certificate
            require_client_authentication=is_needed,
        )

    def http_context(self) -> ssl.SSLContext:
        """Return the TLS context of an HTTP server on the event loop; each handshake uses the newest certificate."""
        return _NewestContext(lambda: self._context)

    async def prepare(self, _settings: Settings) -> Apply:
        """Read the files anew, for a reload; raises `StartError`."""
        read = await asyncio.to_thread(self._files.read)
        context = _http_context(read)

        def apply() -> None:
            self._read, self._context = read, context
            self._files.note_expiry(read)

        return apply


class _NewestContext(ssl.SSLContext):
    """A context that delegates each handshake to the newest context.

    Replacing the certificate within one context would keep its cache of TLS 1.2 sessions. A client could resume such a session and so
    avoid the check against new authorities.
    """

    def __new__(cls, _newest: Callable[[], ssl.SSLContext]) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, newest: Callable[[], ssl.SSLContext]) -> None:
        self._newest = newest

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:  # noqa: ANN401 - as the library's own
        """Begin a connection with the newest context, as `ssl.SSLContext.wrap_bio`."""
        return self._newest().wrap_bio(*arguments, **named)


class ClientTls:
    """TLS of the calls to other services."""

    def __init__(self, files: _Files, read: _Read) -> None:
        self._files = files
        self._read = read
        self._renewals: list[Callable[[], None]] = []
        files.note_expiry(read)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials of a channel."""
        pair = self._read.pair
        if pair is None:
            return grpc.ssl_channel_credentials(self._read.authorities_pem)
        return grpc.ssl_channel_credentials(self._read.authorities_pem, pair.key_pem, pair.chain_pem)

    def on_renewal(self, renew: Callable[[], None]) -> None:
        """Call `renew` each time that a reload has found other content in the files."""
        self._renewals.append(renew)

    def forget(self, renew: Callable[[], None]) -> None:
        """Stop calling `renew`."""
        self._renewals.remove(renew)

    async def prepare(self, _settings: Settings) -> Apply:
        """Read the files anew, for a reload; raises `StartError`."""
        read = await asyncio.to_thread(self._files.read)

        def apply() -> None:
            if read == self._read:
                return
            self._read = read
            self._files.note_expiry(read)
            for renew in tuple(self._renewals):
                renew()

        return apply


def server_tls(reloadable: Reloadable[Kind], listener: str) -> ServerTls | None:
    """Return the TLS of a listener, None if it has none; raises `StartError` for files that cannot work.

    `listener` is the name of a service, or "admin".
    """
    files = _Files.of(reloadable.settings, f"{listener}_", "client_ca")
    if files.pair is None:
        if files.authorities is not None:
            names = (files.authorities.variable, variable(f"{listener}_tls_cert_file"))
            raise StartError(f"{names[0]} needs {names[1]}: without TLS, no client can present a certificate; set both")
        return None
    tls = ServerTls(files, files.read())
    reloadable.on_prepare(tls.prepare)
    return tls


def client_tls(reloadable: Reloadable[Kind]) -> ClientTls | None:
    """Return the TLS of calls to other services, None if these use no TLS; raises `StartError` for files that cannot work."""
    files = _Files.of(reloadable.settings, "", "ca")
    if files.authorities is None:
        if files.pair is not None:
            raise StartError(
                f"{files.pair[0].variable} needs {variable('tls_ca_file')}; set it to a PEM file of the other services' certificate "
                "authorities"
            )
        return None
    tls = ClientTls(files, files.read())
    reloadable.on_prepare(tls.prepare)
    return tls


def _file(settings: Settings, name: str) -> NamedFile | None:
    path = getattr(settings, name)
    return None if path is None else NamedFile(variable(name), path)


def _grpc_configuration(read: _Read) -> "grpc.ServerCertificateConfiguration":
    assert read.pair is not None  # noqa: S101 - `server_tls` ensures it
    return grpc.ssl_server_certificate_configuration([(read.pair.key_pem, read.pair.chain_pem)], read.authorities_pem or None)


def _http_context(read: _Read) -> ssl.SSLContext:
    assert read.pair is not None  # noqa: S101 - `server_tls` ensures it
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    certificates.show(context, read.pair.chain_pem, read.pair.key_pem)
    if read.authorities_pem:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=read.authorities_pem.decode("ascii", "ignore"))
    return context
