from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.translate.timestamps import parse_time, time_json

OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=OFFSETS))  # noqa: DTZ001 - the bounds take the zone drawn
def test_a_time_of_any_zone_is_shown_in_utc(moment: datetime) -> None:
    shown = time_json(parse_time(moment.isoformat()))
    assert shown.endswith("Z")
    assert datetime.fromisoformat(shown) == moment.astimezone(UTC)


@pytest.mark.parametrize("text", ["2030-01-31t12:00:00z", "2030-01-31T12:00:00.123456789+02:00"])
def test_a_time_may_be_written_in_every_way_of_rfc_3339(text: str) -> None:
    assert parse_time(text).seconds > 0


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "1900000000", "2030-01-31", "2030-01-31T12:00:00", "2030-01-31 12:00:00Z", "2030-02-30T12:00:00Z"),
        *("2030-01-31T24:00:00Z", "2030-01-31T12:00:60Z", "2030-01-31T12:00:00+24:00", "2030-01-31T12:00:00.1234567890Z"),
        *(
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+10:00",
            "9999-12-31T23:59:59-10:00",
            "2030-1-1T0:0:0Z",
            "\uff12\uff10\uff13\uff10-01-31T12:00:00Z",
        ),
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time as in RFC 3339"):
        parse_time(text)
