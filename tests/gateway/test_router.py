import pytest
from aiohttp import web

from gateway.problems import FailureWithHeaders
from gateway.router import Call, Route, Router
from services.runtime.errors import Failure, Reason


async def handler(_call: Call) -> web.Response:
    return web.Response()


ROUTER = Router(
    [
        Route("GET", "/v1/things", handler, None),
        Route("POST", "/v1/things", handler, None),
        Route("GET", "/v1/things/{id}", handler, None),
        Route("DELETE", "/v1/things/{id}", handler, None),
        Route("POST", "/v1/things/{id}/parts/{part}", handler, None),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "template", "names"),
    [
        ("GET", "/v1/things", "/v1/things", {}),
        ("HEAD", "/v1/things", "/v1/things", {}),
        ("GET", "/v1/things/a", "/v1/things/{id}", {"id": "a"}),
        ("POST", "/v1/things/a/parts/b.c", "/v1/things/{id}/parts/{part}", {"id": "a", "part": "b.c"}),
        ("GET", "/v1/things/a%2Fparts%2Fb", "/v1/things/{id}", {"id": "a/parts/b"}),
        ("GET", "/v1/things/%C3%A4", "/v1/things/{id}", {"id": "ä"}),
    ],
)
def test_a_route_is_found_with_the_values_of_its_names(method: str, path: str, template: str, names: dict[str, str]) -> None:
    route, values = ROUTER.find(method, path)
    assert (route.template, values) == (template, names)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/v1",
        "/v1/things/",
        "/v1/things//parts/b",
        "/v1/thingsx",
        "/v1/things/a/parts",
        "/v1/things/%FF",
        "//v1/things",
        "/V1/things",
    ],
)
def test_another_path_is_no_route(path: str) -> None:
    with pytest.raises(Failure) as caught:
        ROUTER.find("GET", path)
    assert caught.value.reason is Reason.ROUTE_NOT_FOUND


def test_another_method_is_told_which_there_are() -> None:
    with pytest.raises(FailureWithHeaders) as caught:
        ROUTER.find("PATCH", "/v1/things/a")
    assert caught.value.reason is Reason.METHOD_NOT_ALLOWED
    assert caught.value.headers == {"allow": "DELETE, GET, HEAD"}
