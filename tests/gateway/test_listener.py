from aiohttp import web

from gateway.listener import HttpLimits, listening
from services.runtime.http.connection_limits import ConnectionLimits
from services.runtime.http.listener import Gate
from tests.gateway.raw_http import Dialled, head


async def test_a_handler_s_own_fault_is_a_problem_without_its_text() -> None:
    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        raise RuntimeError("the password is hunter2")

    async with listening(handler, "127.0.0.1:0", HttpLimits(), Gate(ConnectionLimits())) as address, Dialled(address) as wire:
        await wire.send(head("GET", "/"))
        answer = await wire.answer()
        assert (answer.status, answer.json["reason"]) == (500, "INTERNAL")
        assert b"hunter2" not in answer.raw
        assert await wire.ended()


async def test_an_answer_that_breaks_off_ends_the_connection() -> None:
    """A second head in the middle of a body would be read as part of the body."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "100"})
        await response.prepare(request)
        await response.write(b"begun")
        raise RuntimeError("half-way")

    async with listening(handler, "127.0.0.1:0", HttpLimits(), Gate(ConnectionLimits())) as address, Dialled(address) as wire:
        await wire.send(head("GET", "/"))
        assert (await wire.reader.read()).endswith(b"\r\n\r\nbegun")
