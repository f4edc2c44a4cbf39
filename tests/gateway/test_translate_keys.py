from hooktide.subscription.v1 import access_pb2 as pb

from gateway.authentication import Caller, Role
from gateway.translate.keys import caller_or_refusal
from services.runtime.errors import Failure, Reason


def test_a_key_of_an_unknown_role_is_refused_alone() -> None:
    """A newer registry may have more roles. One question names the keys of many callers, so one key must not fail them all."""
    answer = pb.AuthenticateKeysResponse()
    for role in (pb.ROLE_ADMIN, 99, pb.ROLE_UNSPECIFIED):
        answer.results.add(key=pb.Key(id="key_1", role=role))  # type: ignore[arg-type]  # 99 is no role yet
    known, *unknown = map(caller_or_refusal, answer.results)
    assert isinstance(known, Caller)
    assert known.role is Role.ADMIN
    assert [outcome.reason for outcome in unknown if isinstance(outcome, Failure)] == [Reason.ROLE_FORBIDDEN] * 2
