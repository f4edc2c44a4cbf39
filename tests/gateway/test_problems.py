import re
from pathlib import Path

import pytest

from gateway.problems import PROBLEMS_MAX, FailureWithHeaders, in_rest_terms, invalid_request, place_of, problem_of
from services.runtime.errors import Failure, FieldError, Reason, invalid_fields

CONTRACT = Path(__file__).parents[2] / "protos" / "hooktide" / "error" / "v1" / "error.proto"


def documented() -> dict[str, int | None]:
    """Return the HTTP status that the contract's comments give each reason; None if they give none."""
    entries = re.findall(r"((?:\s*//[^\n]*\n)+)\s*ERROR_REASON_(\w+) = [1-9]", CONTRACT.read_text())
    statuses = {name: re.search(r"HTTP (\d{3})", comment) for comment, name in entries}
    return {name: int(match[1]) if match else None for name, match in statuses.items()}


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_every_reason_has_the_status_that_the_contract_documents(reason: Reason) -> None:
    """Only services meet a reason without a status; to a client it is an internal error."""
    status = documented()[reason.name]
    problem = problem_of(Failure(reason, "Why."), "req_1")
    assert problem.status == (status or 500)
    shown = reason.name if status else "INTERNAL"
    assert problem.members == {
        "type": "/docs/errors/" + shown.lower().replace("_", "-"),
        "title": problem.members["title"],
        "status": problem.status,
        "detail": "Why." if status else problem.members["detail"],
        "reason": shown,
        "errors": [],
        "request_id": "req_1",
    }


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("subscription.sink", "/sink"),
        ("subscription.types[3]", "/types/3"),
        ("subscription.config.description", "/config/description"),
        ("secret", "/secret"),
        ("overlap", "/overlap_seconds"),
        ("consumer_id", "/consumer_id"),
        ("key.role", "/role"),
        ("key.expire_time", "/expires_at"),
        ("key.consumer_id", "/consumer_id"),
        ("consumer.name", "/name"),
        ("update_mask.paths[0]", ""),
        ("subscription.config.retry.delays", "/config/retry/delays_seconds"),
        ("subscription.config.retry.delays[2]", "/config/retry/delays_seconds/2"),
        ("subscription.config.rate_per_second", "/config/rate_per_second"),
        ("subscription.protocol_settings.timeout", "/protocolsettings/timeout_seconds"),
        ("subscription.protocol_settings.signatures[1]", "/protocolsettings/signatures/1"),
        ("subscription.protocol_settings.headers", "/protocolsettings/headers"),
        ("subscription.protocol_settings.headers.x-team", "/protocolsettings/headers/x-team"),
        ("subscription.protocol_settings.headers.x.y[0]", "/protocolsettings/headers/x.y[0]"),
        ("subscription.protocol_settings.headers.a/b~c", "/protocolsettings/headers/a~1b~0c"),
        ("subscription.sink_credential.plain.secret", "/sinkcredential/secret"),
        ("subscription.sink_credential.oauth2.token_url", "/sinkcredential/tokenurl"),
        ("subscription.sink_credential.access_token.token_type", "/sinkcredential/accesstokentype"),
        ("subscription.sink_credential.mtls.private_key", "/sinkcredential/privatekey"),
        ("scheme", "/signature"),
        ("rate_per_minute", "WebHook-Allowed-Rate:"),
        ("page_token", "?cursor"),
        ("start_time", "?after"),
        ("event_type", "?type"),
        ("event_type.description", "/description"),
        ("id", "?id"),
        ("request_id", "Idempotency-Key:"),
        ("etag", "If-Match:"),
    ],
)
def test_a_field_of_the_contract_has_its_place_in_the_request(path: str, place: str) -> None:
    assert place_of(path) == place


def test_a_service_s_failure_is_told_in_the_words_of_rest() -> None:
    failure = in_rest_terms(
        invalid_fields([FieldError("subscription.types[0]", "must be a name"), FieldError("request_id", "is too long")])
    )
    assert failure.message == "/types/0: must be a name; Idempotency-Key: is too long"
    assert problem_of(failure, "req_1").members["errors"] == [
        {"pointer": "/types/0", "detail": "must be a name"},
        {"header": "Idempotency-Key", "detail": "is too long"},
    ]


@pytest.mark.parametrize(("wait_s", "header"), [(None, "1"), (0.0, "1"), (0.2, "1"), (2.1, "3")])
def test_a_client_is_told_in_whole_seconds_when_to_try_again(wait_s: float | None, header: str) -> None:
    for reason in (Reason.UNAVAILABLE, Reason.OVERLOADED, Reason.STORAGE_FULL):
        assert problem_of(Failure(reason, "Later.", retry_after_s=wait_s), "req_1").headers["retry-after"] == header


def test_no_more_problems_are_named_than_anyone_reads() -> None:
    failure = invalid_request([FieldError(f"/{number}", "is wrong") for number in range(100_000)])
    assert len(failure.fields) == PROBLEMS_MAX
    assert len(failure.message) < 1000


def test_a_refusal_adds_its_headers() -> None:
    refusal = FailureWithHeaders(Reason.METHOD_NOT_ALLOWED, "No.", headers={"allow": "GET"})
    assert problem_of(refusal, "req_1").headers["allow"] == "GET"
