import pytest

from services.runtime.errors import Failure, Reason
from services.runtime.rpc.access import Access, AccessRules, ServiceTokens, bearer

FIRST, SECOND, OTHER = (f"hts_{letter * 40}" for letter in "abc")
RULES = {"/p.S/Public": Access.PUBLIC, "/p.S/Key": Access.KEY, "/p.S/Service": Access.SERVICE}


@pytest.mark.parametrize(
    ("authorization", "key"), [("Bearer hkt_1", "hkt_1"), ("bearer hkt_1", "hkt_1"), ("Basic hkt_1", None), ("hkt_1", None), ("", None)]
)
def test_a_bearer_s_key_is_read(authorization: str, key: str | None) -> None:
    assert bearer(authorization) == key


@pytest.mark.parametrize("method", ["/p.S/Public", "/p.S/Key"])
def test_a_method_for_others_needs_no_service_token(method: str) -> None:
    assert AccessRules(RULES, FIRST).check(method, "") is RULES[method]


@pytest.mark.parametrize("authorization", ["", f"Bearer {OTHER}", f"Basic {FIRST}", FIRST])
@pytest.mark.parametrize("method", ["/p.S/Service", "/p.S/NotDeclared"])
def test_a_method_for_services_and_one_that_is_not_declared_need_the_token(method: str, authorization: str) -> None:
    with pytest.raises(Failure) as caught:
        AccessRules(RULES, FIRST).check(method, authorization)
    assert caught.value.reason is Reason.SERVICE_TOKEN_REQUIRED


def test_all_tokens_are_accepted_and_the_first_is_sent_also_after_a_reload() -> None:
    tokens = ServiceTokens([FIRST, SECOND])
    rules = AccessRules(RULES, tokens)
    assert [rules.check("/p.S/Service", f"Bearer {token}") for token in (FIRST, SECOND)] == [Access.SERVICE] * 2
    assert list(tokens) == [("authorization", f"Bearer {FIRST}")]
    tokens.replace([OTHER])
    assert rules.check("/p.S/Service", f"Bearer {OTHER}") is Access.SERVICE
    assert list(tokens) == [("authorization", f"Bearer {OTHER}")]
    with pytest.raises(Failure):
        rules.check("/p.S/Service", f"Bearer {FIRST}")
