"""Settings: any text in any variable is either a value that the services can work with, or one line that says what to write."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.settings import ALL, DeliverySettings, GatewaySettings, IngestSettings, SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings, variable
from services.runtime.service_process import StartError

VARIABLES = sorted({variable(name) for kind in ALL for name in kind.model_fields})
VALUES = st.text(st.characters(exclude_characters="\x00"), max_size=30) | st.sampled_from(
    [
        "nan",
        "inf",
        "-inf",
        "1e300",
        "-1",
        "0",
        "1",
        "1e9",
        "5GB",
        "true",
        "127.0.0.1:0",
        "127.0.0.1:99999",
        ":1",
        "unix:",
        "dns:",
        "x" * 9000,
    ]
)


@given(environ=st.dictionaries(st.sampled_from(VARIABLES), VALUES, max_size=8), kind=st.sampled_from(ALL))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_value_or_one_short_line_by_its_variable(environ: dict[str, str], kind: type[Settings]) -> None:
    try:
        read = read_settings(kind, environ)
    except StartError as error:
        lines = str(error).split("\n  ")
        assert {line.partition("=")[0] for line in lines} <= environ.keys()
        assert all(line.isprintable() and len(line) < 300 for line in lines), lines
        return
    for name, field in type(read).model_fields.items():
        value = getattr(read, name)
        if isinstance(value, float):
            assert 0 < value < 1e5, f"{name}: milliseconds of it are a number of 64 bits ({field.description})"


@pytest.mark.parametrize("value", ["inf", "1e300", "nan", "0", "-1", "87601", "a week"])
@pytest.mark.parametrize("name", ["INGEST_RETENTION_HOURS", "DELIVERY_RETENTION_HOURS", "DELIVERY_EXPIRY_HOURS"])
def test_a_time_that_is_none_or_never_ends_is_refused(name: str, value: str) -> None:
    kind = IngestSettings if name.startswith("INGEST") else DeliverySettings
    with pytest.raises(StartError, match=f"HOOKTIDE_{name}={value}: Input should be "):
        read_settings(kind, {f"HOOKTIDE_{name}": value})


def test_a_secret_in_the_wrong_place_is_not_shown(tmp_path: Path) -> None:
    """The errors for a secret key without its id and for a short token name their place, not their value."""
    secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA=="
    file = tmp_path / "secret.key"
    for text in (secret, f"{secret}\n{secret}", f"k1;{secret}"):
        file.write_text(text)
        with pytest.raises(StartError) as caught:
            read_settings(SubscriptionSettings, {"HOOKTIDE_SECRET_KEY_FILE": str(file)}).secret_keys()
        assert str(caught.value) == (f"HOOKTIDE_SECRET_KEY_FILE: the content of {file}: each key must be <key id>:<base64 of 32 bytes>")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(StartError, match=f"HOOKTIDE_SECRET_KEY_FILE: cannot read {file}: it is not UTF-8 text"):
        read_settings(SubscriptionSettings, {"HOOKTIDE_SECRET_KEY_FILE": str(file)}).secret_keys()
    file.write_text("short")
    with pytest.raises(StartError, match=f"HOOKTIDE_SERVICE_TOKEN_FILE: the content of {file} is too short; write at least 24 characters"):
        read_settings(GatewaySettings, {"HOOKTIDE_SERVICE_TOKEN_FILE": str(file)}).token()
