"""TLS: the authorities that an emitter trusts.

[tls] → emitter
"""

import os
from pathlib import Path

import grpc

_BEGINS = b"-----BEGIN CERTIFICATE-----"


def trusting(ca: "str | os.PathLike[str] | bytes | None", credentials: grpc.ChannelCredentials | None) -> grpc.ChannelCredentials | None:
    """Return the credentials of a channel that trusts the PEM certificates in the file `ca`, or in `ca` itself if it is bytes.

    Without `ca`, return `credentials`. Raises ValueError if both are given or `ca` holds no certificate, OSError if the file cannot be
    read.
    """
    if ca is None:
        return credentials
    if credentials is not None:
        message = "pass either ca or credentials, not both: credentials already name the certificate authorities that they trust"
        raise ValueError(message)
    pem = ca if isinstance(ca, bytes) else Path(ca).read_bytes()
    # Without a certificate gRPC would trust every public authority.
    if _BEGINS not in pem:
        message = "ca has no certificate in PEM form; pass the PEM text or file of a certificate authority"
        raise ValueError(message)
    return grpc.ssl_channel_credentials(pem)
