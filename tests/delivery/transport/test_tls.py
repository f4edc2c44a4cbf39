"""TLS: sinks are verified in full, and what one subscription trusts or presents serves no other one."""

import asyncio
import ssl
from pathlib import Path

import pytest

from services.delivery.transport.http import HttpTransport
from services.delivery.transport.protocol import Answer, Outcome, Request, Tls
from services.runtime.service_process import StartError
from tests.delivery.sending import answer_to, post, sending, sent
from tests.support.certificates import Authority
from tests.support.webhook_receivers.hostile_receivers import OK, Connection, HostileServer, answering, hostile


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    (tmp_path / "other").mkdir()
    return Authority(tmp_path / "other")


async def answer_from(context: ssl.SSLContext, roots: Path | None, host: str = "127.0.0.1", **changes: object) -> Answer:
    async with (
        hostile(answering(OK), tls=context) as server,
        sending(roots=roots, lookup=lambda _name: ["127.0.0.1"], connect_timeout_s=1.0) as transport,
    ):
        return await answer_to(transport, post(server.url.replace("127.0.0.1", host))._replace(**changes))  # type: ignore[arg-type]  # Request's own


async def test_a_certificate_for_the_name_or_address_is_accepted(authority: Authority) -> None:
    context = authority.server("127.0.0.1", "hook.example")

    for host in ("127.0.0.1", "hook.example"):
        assert (await answer_from(context, authority.file, host)).outcome is Outcome.DELIVERED


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unknown authority", "unable to get local issuer certificate"),
        ("expired", "expired"),
        ("another name", "hook.example"),
        ("another address", "127.0.0.1"),
        ("old version", ""),
    ],
)
async def test_a_certificate_that_does_not_fit_is_refused_with_its_reason(case: str, words: str, authority: Authority) -> None:
    host = "hook.example"
    roots: Path | None = authority.file
    match case:
        case "unknown authority":
            context, roots = authority.server("hook.example"), None
        case "expired":
            context = authority.server("hook.example", expired=True)
        case "another name":
            context = authority.server("other.example")
        case "another address":
            context, host = authority.server("127.0.0.2"), "127.0.0.1"
        case _:
            context = authority.server("hook.example", version_max=ssl.TLSVersion.TLSv1_1)
    answer = await answer_from(context, roots, host)

    assert (answer.outcome, answer.status) == (Outcome.TLS, 0)
    assert answer.error.startswith("TLS failed: ")
    assert words in answer.error


async def test_a_certificate_that_vouches_for_itself_is_refused(authority: Authority) -> None:
    """Only the certificate's own authority trusts it, and this machine does not have that authority."""
    answer = await answer_from(authority.server("hook.example"), None, "hook.example")

    assert answer.outcome is Outcome.TLS


async def test_tls_1_2_is_new_enough(authority: Authority) -> None:
    context = authority.server("127.0.0.1", version_max=ssl.TLSVersion.TLSv1_2)

    assert (await answer_from(context, authority.file)).outcome is Outcome.DELIVERED


async def test_an_endpoint_that_speaks_no_tls_is_a_failure_of_tls() -> None:
    async with hostile(answering(OK)) as server, sending(connect_timeout_s=1.0) as transport:
        answer = await answer_to(transport, post(server.url.replace("http:", "https:")))

    assert answer.outcome is Outcome.TLS


async def test_a_handshake_that_stands_still_ends_at_the_connect_timeout() -> None:
    async def stand_still(_connection: Connection) -> None:
        await asyncio.Event().wait()

    async with hostile(stand_still) as server, sending(connect_timeout_s=0.3) as transport:
        answer = await answer_to(transport, post(server.url.replace("http:", "https:")))

    assert answer.outcome is Outcome.TLS
    assert "too long" in answer.error


async def test_an_endpoint_that_speaks_tls_to_a_plain_request_is_no_http(authority: Authority) -> None:
    async with hostile(answering(OK), tls=authority.server("127.0.0.1")) as server, sending() as transport:
        answer = await answer_to(transport, post(server.url.replace("https:", "http:")))

    assert answer.outcome in {Outcome.PROTOCOL, Outcome.RESET}


async def test_a_subscriptions_own_authority_is_trusted_besides_the_public_ones(authority: Authority, other: Authority) -> None:
    tls = Tls(ca_pem=other.pem)

    assert (await answer_from(other.server("127.0.0.1"), authority.file, tls=tls)).outcome is Outcome.DELIVERED
    assert (await answer_from(authority.server("127.0.0.1"), authority.file, tls=tls)).outcome is Outcome.DELIVERED
    assert (await answer_from(other.server("127.0.0.1"), authority.file)).outcome is Outcome.TLS


async def test_the_file_of_public_authorities_is_read_once(authority: Authority, other: Authority) -> None:
    """It is read once however many requests have an authority of their own, and even if the file disappears."""
    tls = Tls(ca_pem=other.pem)
    async with (
        hostile(answering(OK), tls=other.server("127.0.0.1")) as own,
        hostile(answering(OK), tls=authority.server("127.0.0.1")) as public,
        sending(roots=authority.file) as transport,
    ):
        authority.file.unlink()
        answers = [await answer_to(transport, post(server.url)._replace(tls=tls)) for server in (own, public, own, public)]

    assert {answer.outcome for answer in answers} == {Outcome.DELIVERED}


async def test_a_file_of_public_authorities_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read"):
        async with sending(roots=tmp_path / "nothing.pem"):
            pass


async def test_what_one_subscription_trusts_no_other_one_does(authority: Authority, other: Authority) -> None:
    """The sink gets no request of another subscription even over a connection that is already open."""
    async with hostile(answering(OK), tls=other.server("127.0.0.1")) as server, sending(roots=authority.file) as transport:
        with_it, without = post(server.url)._replace(tls=Tls(ca_pem=other.pem)), post(server.url)
        outcomes = [(await answer_to(transport, request)).outcome for request in (with_it, without, with_it, without)]

    assert outcomes == [Outcome.DELIVERED, Outcome.TLS, Outcome.DELIVERED, Outcome.TLS]
    assert len(server.requests) == 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("stranger", [True, False])
async def test_an_endpoint_that_wants_a_certificate_refuses_without_it(
    *, stranger: bool, version: ssl.TLSVersion, authority: Authority, other: Authority
) -> None:
    tls = other.client("stranger") if stranger else None
    answer = await answer_from(authority.server("127.0.0.1", clients=authority, version_max=version), authority.file, tls=tls)

    # In TLS 1.3 the server refuses after the client's side of the handshake is done; this server just closes.
    assert answer.outcome in ({Outcome.TLS} if version is ssl.TLSVersion.TLSv1_2 else {Outcome.TLS, Outcome.RESET})


@pytest.mark.parametrize("case", ["another key", "no PEM", "no key"])
async def test_a_certificate_that_cannot_be_used_is_said_so(case: str, authority: Authority) -> None:
    tls = authority.client("ours")
    match case:
        case "another key":
            tls = tls._replace(key_pem=authority.client("else").key_pem)
        case "no key":
            tls = tls._replace(key_pem=b"")
        case _:
            tls = Tls(certificate_pem=b"junk", key_pem=b"junk")
    answer = await answer_from(authority.server("127.0.0.1", clients=authority), authority.file, tls=tls)

    assert answer.outcome is Outcome.TLS
    assert "client certificate" in answer.error


async def test_an_endpoint_that_wants_a_certificate_is_shown_it(authority: Authority) -> None:
    context = authority.server("127.0.0.1", clients=authority)

    assert (await answer_from(context, authority.file, tls=authority.client("ours"))).outcome is Outcome.DELIVERED


def naming(*, keep: bool) -> tuple["Names", object]:
    """Return a behaviour that answers with the name on the client's certificate, and the record of those names."""
    names = Names()

    async def behave(connection: Connection) -> None:
        ssl_object: ssl.SSLObject = connection.writer.get_extra_info("ssl_object")
        names.resumed.append(bool(ssl_object.session_reused))
        subject = dict(pair for part in (ssl_object.getpeercert() or {}).get("subject", ()) for pair in part)  # type: ignore[misc]  # typeshed's nested tuples
        name = str(subject.get("commonName", "nobody"))
        while await connection.request() is not None:
            closing = "" if keep else "connection: close\r\n"
            await connection.send(f"HTTP/1.1 200 OK\r\n{closing}content-length: {len(name)}\r\n\r\n{name}".encode())
            if not keep:
                return

    return names, behave


class Names:
    """What a naming server has recorded."""

    def __init__(self) -> None:
        self.resumed: list[bool] = []


async def names_shown(transport: HttpTransport, server: HostileServer, wearers: list[Tls | None]) -> list[str]:
    """Send with each client certificate, at once and several times over; return the names under which the server knew each client."""
    requests = [Request(server.url, {}, b"", tls=tls, whole=True) for tls in wearers]
    answers = await asyncio.gather(*(sent(transport, request) for request in requests))
    return [answer.body.decode() for answer in answers]


@pytest.mark.parametrize("keep", [True, False], ids=["kept connections", "resumed sessions"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_is_shown_for_its_own_subscription_alone(*, keep: bool, version: ssl.TLSVersion, authority: Authority) -> None:
    """Neither an open connection nor a TLS session carries the identity of one subscription to another."""
    alice, bob = authority.client("alice"), authority.client("bob")
    names, behave = naming(keep=keep)
    context = authority.server("127.0.0.1", clients=authority, client_needed=False, version_max=version)
    async with hostile(behave, tls=context) as server, sending(roots=authority.file) as transport:  # type: ignore[arg-type]  # a behaviour
        for _ in range(6):
            shown = await names_shown(transport, server, [alice, None, bob, None, bob, alice])
            assert shown == ["alice", "nobody", "bob", "nobody", "bob", "alice"]
        await asyncio.gather(*(sent(transport, post(server.url)) for _ in range(5)))

    if keep:
        assert server.connections < 36, "connections were kept"
    elif version is ssl.TLSVersion.TLSv1_3:
        assert any(names.resumed), "sessions were resumed"
