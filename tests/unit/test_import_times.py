"""Times as vendors write them mean one moment, or none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.importers.times import to_micros


@pytest.mark.parametrize(
    ("written", "micros"),
    [
        ("2022-06-22 18:18:29.015", 1_655_921_909_015_000),
        ("2025-02-14 19:42:57.123456789", 1_739_562_177_123_456),
        ("2024-01-15T10:45:23Z", 1_705_315_523_000_000),
        ("2024-01-15T12:45:23+02:00", 1_705_315_523_000_000),
        ("2024-12-17 00:00:00000000", 1_734_393_600_000_000),
        (1_621_305_118_553, 1_621_305_118_553_000),
    ],
)
def test_times_are_read_in_the_forms_that_occur(written: Any, micros: int) -> None:
    assert to_micros(written) == micros


@pytest.mark.parametrize(
    "written", ["redacted", "...", None, "", True, -1, "2024-13-01 00:00:00", 10**20]
)
def test_what_is_no_time_gives_none(written: Any) -> None:
    assert to_micros(written) is None


@given(moment=st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)))  # noqa: DTZ001 - UTC is meant
def test_every_form_of_a_moment_means_the_same(moment: datetime) -> None:
    utc = moment.replace(tzinfo=UTC)
    east = utc.astimezone(timezone(timedelta(hours=5, minutes=30)))

    found = {to_micros(text) for text in (str(moment), utc.isoformat(), east.isoformat())}

    assert found == {(utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)}
