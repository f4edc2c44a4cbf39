"""HTTP: the transport over HTTP/1.1. It checks a request's URL, gathers its addresses and TLS context, and hands it to the pool.

sender, oauth2_client, sinks → [http] → resolver, tls_contexts → pool → connection → callback URL
"""

import asyncio
import base64
import contextlib
import functools
import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from services.delivery.transport.exchange import DialPolicy, Exchange, Limits, Target, Tunnel, failed
from services.delivery.transport.pool import Pool
from services.delivery.transport.protocol import WITHDRAWN, Answer, Outcome, Request
from services.delivery.transport.resolver import Lookup, Resolved, Resolver, system_lookup
from services.delivery.transport.tls_contexts import TlsContext, TlsContexts
from services.egress.policy import EgressPolicy
from services.egress.urls import DEFAULT_PORTS, parse_url
from services.runtime.fair_semaphore import Share
from services.runtime.service_process import StartError

# Checking a URL takes longer than everything else in this file, so verdicts are cached; an entry takes about 200 bytes plus the URL's text.
_URLS_MAX = 16_384
_STOPPED = failed(Outcome.RESET, "the service stopped before the request was sent")


class HttpTransport:
    """Sends by HTTP/1.1 on the event loop; made by `open_http_transport`."""

    def __init__(self, policy: EgressPolicy, limits: Limits, tls_contexts: TlsContexts, lookup: Lookup, proxy: "Proxy | None") -> None:
        self._loop = asyncio.get_running_loop()
        self._policy = policy
        self._resolver = Resolver(
            lookup, policy, timeout_s=limits.connect_timeout_s, kept_s=limits.names_kept_s, share=lambda: limits.lookups
        )
        self._tls_contexts = tls_contexts
        self._proxy = proxy
        dial_policy = DialPolicy(policy.check_address, None if proxy is None else proxy.tunnel)
        self._pool = Pool(dial_policy, limits, self._finish, self._has_fault)
        self._target = functools.lru_cache(_URLS_MAX)(self._judged)
        policy.on_change(self._judge_anew)
        self._preparing: dict[Exchange, None] = {}
        """Exchanges that wait for a name lookup (their own or the proxy's), or for a TLS context."""
        self._finished: list[tuple[Exchange, Answer]] = []
        self._outbox: list[Exchange] = []
        self._turn_asked = False
        self._closed = False
        self.fault: asyncio.Future[None] = self._loop.create_future()
        """Fails if the transport has a bug of its own; `open_http_transport` then closes the transport, and it sends nothing."""

    def send(self, request: Request, done: Callable[[Answer], None]) -> None:
        """Begin to send; see `Transport.send`."""
        target = self._target(request.url)
        if isinstance(target, str):
            self._finish(Exchange(request, done, _NOWHERE), failed(Outcome.BLOCKED, target))
            return
        exchange = Exchange(request, done, target)
        if self._closed:
            self._finish(exchange, _STOPPED)
        elif target.addresses:
            self._leave(exchange)
        elif (found := self._resolver.cached(target.name)) is not None:
            self._go(exchange, found)
        else:
            self._preparing[exchange] = None
            self._resolver.resolve(target.name, request.owner, functools.partial(self._resolved, exchange))

    def withdraw(self, subscription_id: str) -> None:
        """See `Transport.withdraw`."""
        self._withdraw(lambda request: request.subscription_id == subscription_id)

    def withdraw_all(self, owner: str = "") -> None:
        """See `Transport.withdraw_all`."""
        self._withdraw(lambda request: request.subscription_id != "" and owner in {"", request.owner})

    def _withdraw(self, is_meant: Callable[[Request], bool]) -> None:
        if self._closed:
            return
        for exchange in [each for each in self._preparing if is_meant(each.request)]:
            del self._preparing[exchange]
            self._finish(exchange, WITHDRAWN)
        for exchange in [each for each in self._outbox if is_meant(each.request)]:
            self._outbox.remove(exchange)
            self._finish(exchange, WITHDRAWN)
        self._pool.withdraw(is_meant)

    def close(self) -> None:
        """Stop all requests under way; each is answered as reset before this returns."""
        self._closed = True
        self._resolver.close()
        self._tls_contexts.close()
        if self._proxy is not None:
            self._proxy.close()
        self._finished += [(exchange, _STOPPED) for exchange in (*self._preparing, *self._outbox)]
        self._preparing.clear()
        self._outbox.clear()
        self._pool.close()
        self._turn()

    def _judge_anew(self) -> None:
        """After a change of the policy, drop cached verdicts on URLs and names, and connections to addresses that are now forbidden."""
        self._target.cache_clear()
        self._resolver.forget()
        self._pool.retire(lambda address: self._policy.check_address(address) is not None)

    def _judged(self, url: str) -> "Target | str":
        """Return a URL's target, or why the URL may not be called."""
        why = self._policy.check_url(url)
        if why is not None:
            return why
        parts = parse_url(url)
        name = parts.host if isinstance(parts.host, str) else ""
        host = name or (f"[{parts.host}]" if ":" in str(parts.host) else str(parts.host))
        if parts.port != DEFAULT_PORTS[parts.scheme]:
            host = f"{host}:{parts.port}"
        rest = url.partition("://")[2]
        begins = re.search("[/?]", rest)
        path = rest[begins.start() :] if begins else "/"
        addresses = () if name else (str(parts.host),)
        path = path if path.startswith("/") else f"/{path}"
        origin = (name or str(parts.host), parts.port)
        return Target(name, addresses, parts.port, is_tls=parts.scheme == "https", host=host, path=path, origin=origin)

    # Before a request can leave

    def _resolved(self, exchange: Exchange, found: Resolved) -> None:
        if exchange in self._preparing:
            del self._preparing[exchange]
            self._go(exchange, found)

    def _go(self, exchange: Exchange, found: Resolved) -> None:
        if found.failure is not None:
            self._finish(exchange, failed(found.failure, found.error))
        else:
            exchange.addresses = found.addresses
            self._leave(exchange)

    def _leave(self, exchange: Exchange) -> None:
        """Put an exchange into the outbox, or first get the TLS context or the proxy's address that it lacks."""
        if exchange.target.is_tls and exchange.tls_context is None:
            self._get_tls_context(exchange)
        elif self._proxy is None or self._proxy.is_known():
            self._outbox.append(exchange)
            if not self._turn_asked:
                self._ask_turn()
        else:
            self._preparing[exchange] = None
            self._proxy.ask(functools.partial(self._proxy_found, exchange))

    def _get_tls_context(self, exchange: Exchange) -> None:
        tls = exchange.request.tls
        if tls is None:
            self._with_tls_context(exchange, self._tls_contexts.default)
        elif (tls_context := self._tls_contexts.cached(tls, exchange.request.owner)) is not None:
            self._with_tls_context(exchange, tls_context)
        else:
            self._preparing[exchange] = None
            self._tls_contexts.make(tls, exchange.request.owner, functools.partial(self._has_tls_context, exchange))

    def _has_tls_context(self, exchange: Exchange, tls_context: TlsContext | str) -> None:
        if exchange in self._preparing:
            del self._preparing[exchange]
            self._with_tls_context(exchange, tls_context)

    def _with_tls_context(self, exchange: Exchange, tls_context: TlsContext | str) -> None:
        if isinstance(tls_context, str):
            self._finish(exchange, failed(Outcome.TLS, tls_context))
        else:
            exchange.tls_context = tls_context
            self._leave(exchange)

    def _proxy_found(self, exchange: Exchange) -> None:
        if exchange in self._preparing:
            del self._preparing[exchange]
            # If the proxy's address was not found, connecting fails.
            self._outbox.append(exchange)
            self._ask_turn()

    # Answers

    def _finish(self, exchange: Exchange, answer: Answer) -> None:
        self._finished.append((exchange, answer))
        if not self._turn_asked:
            self._ask_turn()

    def _ask_turn(self) -> None:
        if not self._turn_asked:
            self._turn_asked = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Hand the answers over, then empty the outbox one iteration later.

        An answer frees room, and its receiver soon sends more: those requests leave together with the outbox.
        """
        try:
            finished, self._finished = self._finished, []
            for exchange, answer in finished:
                if not answer.status and answer.outcome is Outcome.CONNECT:
                    self._resolver.defer(exchange.target.name, exchange.addresses[: exchange.tried + 1])
                elif exchange.tried:
                    self._resolver.prefer(exchange.target.name, exchange.addresses[exchange.tried])
                exchange.done(answer)
        except Exception as error:  # noqa: BLE001 - passed on: the exchanges not yet answered will get no answer
            self._has_fault(error)
        if finished:
            self._loop.call_soon(self._send_out)
        else:
            self._send_out()

    def _send_out(self) -> None:
        self._turn_asked = False
        try:
            outbox, self._outbox = self._outbox, []
            for exchange in outbox:
                self._pool.put(exchange)
        except Exception as error:  # noqa: BLE001 - as above
            self._has_fault(error)
        if self._finished:
            self._ask_turn()

    def _has_fault(self, error: BaseException) -> None:
        if not self.fault.done():
            self.fault.set_exception(error)


# There is only one name to look up, the proxy's.
_ONE_NAME = Share(permits=1, owner_permits=1)
_NOWHERE = Target("", (), 0, is_tls=False, host="", path="", origin=("", 0))


class Proxy:
    """The operator's proxy, by the URL ``http://[user:password@]host:port``."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Parse the URL; `ask` looks the name up."""
        parts = urlsplit(url)
        self._name = parts.hostname or ""
        user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        shown = f"Basic {base64.b64encode(user.encode()).decode()}" if parts.username is not None else ""
        self.tunnel = Tunnel(parts.port or DEFAULT_PORTS["http"], shown)
        # The operator chose the proxy, so any address is allowed.
        self._resolver = Resolver(system_lookup, _AnyAddress(), timeout_s=timeout_s, kept_s=15.0, share=_ONE_NAME)

    def is_known(self) -> bool:
        """Return whether the proxy's addresses are known, and update the tunnel with them."""
        found = self._resolver.cached(self._name)
        if found is None:
            return False
        # A lookup may have ended after its callers were told that it takes too long.
        self.tunnel.addresses = found.addresses
        return True

    def ask(self, then: Callable[[], None]) -> None:
        """Look up the proxy's addresses, then call `then` once, later. If the lookup fails, connecting fails."""

        def found(found: Resolved) -> None:
            self.tunnel.addresses = found.addresses
            then()

        self._resolver.resolve(self._name, "", found)

    def close(self) -> None:
        """Stop looking up."""
        self._resolver.close()


class _AnyAddress:
    def check_addresses(self, _addresses: Sequence[str], /) -> str | None:
        return None

    def explain_addresses(self, _addresses: Sequence[str], /) -> str:
        return ""


def roots_file() -> str:
    """Return the path of the certificates that this machine trusts; `SSL_CERT_FILE` overrides it.

    Raises `StartError` if there is no such file.
    """
    path = ssl.get_default_verify_paths().cafile
    if path is None:
        raise StartError("this machine has no file of trusted certificates; install ca-certificates, or name such a file in SSL_CERT_FILE")
    return path


def _tls_contexts(file: str, limits: Limits) -> TlsContexts:
    try:
        return TlsContexts(Path(file).read_bytes(), kept_max=lambda: limits.contexts_max, timeout_s=limits.timeout_s)
    except ssl.SSLError as error:
        raise StartError(
            f"the file of trusted certificates, {file}, has no certificate that can be read; write certificates in PEM form"
        ) from error
    except OSError as error:
        raise StartError(f"the file of trusted certificates, {file}, cannot be read: {error.strerror}") from error


@contextlib.asynccontextmanager
async def open_http_transport(
    policy: EgressPolicy, limits: Limits, *, proxy: str = "", lookup: Lookup = system_lookup, roots: str = ""
) -> AsyncIterator[HttpTransport]:
    """Open a transport; on exit it answers the requests under way as reset.

    `proxy` is the operator's (``http://[user:password@]host:port``); if given, all requests go through it. `lookup` resolves names.
    `roots` is a file of certificates to trust instead of this machine's. Raises `StartError` if the certificates cannot be read.
    A bug in the transport cancels the body and raises.
    """
    through = Proxy(proxy, limits.connect_timeout_s) if proxy else None
    transport = HttpTransport(policy, limits, _tls_contexts(roots or roots_file(), limits), lookup, through)

    async def watch() -> None:
        await asyncio.shield(transport.fault)

    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        try:
            yield transport
        except Exception as error:  # noqa: BLE001 - raised below: raised within the group, it would become an exception group of one
            failure = error
        finally:
            transport.close()
            if not transport.fault.done():
                watching.cancel()
    if failure is not None:
        raise failure
