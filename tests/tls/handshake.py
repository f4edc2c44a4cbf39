"""Handshake: a bare TLS handshake in any version, without verification."""

import asyncio
import ssl
import warnings


async def negotiated(target: str, version: ssl.TLSVersion, protocol: str) -> str | None:
    """Return the TLS version that a listener agrees with a client that knows no version above `version`; None if it refuses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    with warnings.catch_warnings():
        # Deprecated versions of TLS are tested on purpose.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
    host, _, port = target.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    except OSError:
        return None
    chosen: str = writer.get_extra_info("ssl_object").version()
    writer.close()
    return chosen
