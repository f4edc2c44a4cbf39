"""TLS: the authorities that the client commands trust, and the certificate that they show.

[tls] → rest_client, emit, service_client, readiness
"""

import datetime as dt
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import grpc
import typer

from services.runtime.certificates import NamedFile, Pair, read_authorities, read_pair, show
from services.runtime.service_process import StartError

_CERT, _KEY = "HOOKTIDE_TLS_CERT_FILE", "HOOKTIDE_TLS_KEY_FILE"

CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        envvar="HOOKTIDE_TLS_CA_FILE",
        help=f"Use TLS, and trust the certificate authorities in this PEM file. {_CERT} and {_KEY} name a client certificate.",
        show_default=False,
    ),
]


def http_tls(ca: Path | None) -> ssl.SSLContext:
    """Return the TLS context of calls to an https URL; without `ca` it trusts the public authorities. Raises `StartError`."""
    authorities, pair = _read(ca)
    context = ssl.create_default_context(cadata=authorities.decode("ascii", "ignore") or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if pair is not None:
        show(context, pair.chain_pem, pair.key_pem)
    return context


def grpc_tls(ca: Path | None) -> grpc.ChannelCredentials:
    """Return the credentials of gRPC calls; without `ca` they trust the public authorities. Raises `StartError`."""
    authorities, pair = _read(ca)
    shown = (None, None) if pair is None else (pair.key_pem, pair.chain_pem)
    return grpc.ssl_channel_credentials(authorities or None, *shown)


def probe_tls(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return the TLS context of readiness probes, which show the client certificate that `environ` names. Raises `StartError`.

    The probes verify no certificate, as Kubernetes' do: they send no secret, and an address such as 127.0.0.1 is in few certificates.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    pair = _client_pair(environ)
    if pair is not None:
        show(context, pair.chain_pem, pair.key_pem)
    return context


def _read(ca: Path | None) -> tuple[bytes, Pair | None]:
    authorities = b"" if ca is None else read_authorities(NamedFile("--ca", ca), dt.datetime.now(dt.UTC))
    return authorities, _client_pair(os.environ)


def _client_pair(environ: Mapping[str, str]) -> Pair | None:
    cert, key = environ.get(_CERT, ""), environ.get(_KEY, "")
    if bool(cert) != bool(key):
        raise StartError(f"{_KEY if cert else _CERT} is missing, but {_CERT if cert else _KEY} is set; set both or neither")
    return read_pair(NamedFile(_CERT, Path(cert)), NamedFile(_KEY, Path(key)), dt.datetime.now(dt.UTC)) if cert else None
