import pytest
from hooktide._events import _is_json as is_json_for_the_emitter

from services.runtime.content_type import is_json

JSON = [
    "application/json",
    "application/json; charset=utf-8",
    "application/json ;charset=utf-8",
    "APPLICATION/JSON",
    "text/json",
    "application/cloudevents+json",
    "application/vnd.shop.order-2+json; version=1",
]
NOT_JSON = ["text/plain", "application/xml", "application/jsonp", "application/json5", "application/vnd.shop+xml", "json", "image/png"]


@pytest.mark.parametrize("content_type", ["", *JSON])
def test_json_is_recognised_by_its_type_or_by_the_ending_of_its_type(content_type: str) -> None:
    assert is_json(content_type)


@pytest.mark.parametrize("content_type", [*NOT_JSON, "/json", "+json", "a b/json"])
def test_every_other_type_is_not_json(content_type: str) -> None:
    assert not is_json(content_type)


@pytest.mark.parametrize("content_type", [*JSON, *NOT_JSON])
def test_the_emitter_client_and_the_services_agree(content_type: str) -> None:
    """The client is a package of its own, so it has a rule of its own."""
    assert is_json_for_the_emitter(content_type) == is_json(content_type)
