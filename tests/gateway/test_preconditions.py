import pytest

from tests.gateway.world import SINK, World


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
async def test_a_change_may_depend_on_the_etag_that_was_read(world: World, method: str) -> None:
    created = await world.call("POST", "/v1/subscriptions", {"sink": SINK})
    path, first = created.headers["location"], created.headers["etag"]
    changed = await world.call("PATCH", path, {"types": ["a"]}, headers={"if-match": first})
    assert changed.status == 200
    body = None if method == "DELETE" else {"sink": SINK}
    for tag in (first, f"W/{changed.headers['etag']}"):
        late = await world.call(method, path, body, headers={"if-match": tag})
        assert (late.status, late.json["reason"]) == (412, "ETAG_MISMATCH")
    for header in ("unquoted", '"a", "b"', '"a"x'):
        refused = await world.call(method, path, body, headers={"if-match": header})
        assert (refused.status, refused.json["errors"][0]["header"]) == (400, "If-Match")
    assert (await world.call(method, path, body, headers={"if-match": changed.headers["etag"]})).status in {200, 204}


async def test_any_etag_will_do_for_an_asterisk(world: World) -> None:
    made = await world.subscription()
    assert (await world.call("DELETE", f"/v1/subscriptions/{made['id']}", headers={"if-match": "*"})).status == 204


async def test_a_copy_that_is_current_is_not_sent_again(world: World) -> None:
    created = await world.call("POST", "/v1/subscriptions", {"sink": SINK})
    path, etag = created.headers["location"], created.headers["etag"]
    for sent in (etag, f'"other", W/{etag}', "*"):
        answer = await world.call("GET", path, headers={"if-none-match": sent})
        assert (answer.status, answer.raw, answer.headers["etag"]) == (304, b"", etag)
    for sent in ('"other"', "nonsense"):
        assert (await world.call("GET", path, headers={"if-none-match": sent})).status == 200
