import pytest

from services.runtime.configuration.settings import DeliverySettings
from services.runtime.configuration.value_redaction import CHARS_MAX, printable, quoted, without_password
from tests.runtime.configuration.mistakes import mistakes


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("http://me:hunter2@proxy.example:3128", "http://...@proxy.example:3128"),
        ("me:hunter2@proxy.example", "...@proxy.example"),
        ("https://a:b@c:hunter2@d", "https://...@d"),
        ("ops@example.com", "ops@example.com"),
    ],
)
def test_a_password_before_an_at_sign_is_left_out(value: str, shown: str) -> None:
    assert without_password(value) == shown
    assert printable(value) == shown
    assert quoted(value) == f"'{shown}'"


def test_a_value_that_is_long_or_steers_a_terminal_is_cut_and_quoted() -> None:
    assert printable("\x1b[2J") == "'\\x1b[2J'"
    assert len(printable("x" * 10_000)) == len(quoted("x" * 10_000)) == CHARS_MAX + 1


def test_a_wrong_url_is_shown_without_whom_it_names() -> None:
    (line,) = mistakes(DeliverySettings, {"HOOKTIDE_PUBLIC_URL": "https://hunter2@events.example.com"})
    assert line.startswith("HOOKTIDE_PUBLIC_URL=https://...@events.example.com: ")
    (line,) = mistakes(DeliverySettings, {"HOOKTIDE_DELIVERY_PROXY": "http://me:hunter2@proxy.example"})
    assert line.startswith("HOOKTIDE_DELIVERY_PROXY=http://...@proxy.example: ")
