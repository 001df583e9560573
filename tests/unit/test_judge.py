"""The judge: ids and times, at their edges."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.codec.judge import Horizon, check_time, event_id
from pipeline.domain.errors import InvalidRecord, Reason
from pipeline.testing import EVENT_ID, OCCURRED_AT_US

USUAL = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
HORIZON = Horizon.of(future_s=300, retention_days=10, import_retention_days=20)
DAY_US = 86_400_000_000


@given(octets=st.uuids().filter(lambda uuid: uuid.int > 0), upper=st.booleans())
def test_the_usual_form_of_a_uuid_gives_its_bytes(octets: UUID, upper: bool) -> None:
    text = str(octets).upper() if upper else str(octets)

    assert event_id(text) == octets.bytes


@given(
    at=st.integers(0, 35), text=st.sampled_from([*"-0fFgG \t\n\x0b\u0663\uff11", "", "--", "0 "])
)
@example(at=8, text="0")
@example(at=0, text=" ")
def test_one_other_character_is_judged_as_the_pattern_says(at: int, text: str) -> None:
    changed = EVENT_ID[:at] + text + EVENT_ID[at + 1 :]

    if USUAL.fullmatch(changed):
        assert event_id(changed) == UUID(changed).bytes
        return
    with pytest.raises(InvalidRecord) as refused:
        event_id(changed)
    assert refused.value.reason is Reason.EVENT_ID_INVALID


@pytest.mark.parametrize(
    "text",
    [
        "",
        EVENT_ID.replace("-", ""),
        "{" + EVENT_ID + "}",
        EVENT_ID[:24] + " " * 12,
        EVENT_ID[:-2] + "  ",
        EVENT_ID + "\n",
        str(UUID(int=0)),
    ],
)
def test_other_forms_and_the_nil_uuid_are_refused(text: str) -> None:
    with pytest.raises(InvalidRecord) as refused:
        event_id(text)

    assert refused.value.reason is Reason.EVENT_ID_INVALID


@pytest.mark.parametrize(
    ("late_us", "imported", "reason"),
    [
        (-300_000_000, False, None),
        (-300_000_001, False, Reason.IN_FUTURE),
        (10 * DAY_US, False, None),
        (10 * DAY_US + 1, False, Reason.EXPIRED),
        (10 * DAY_US + 1, True, None),
        (20 * DAY_US + 1, True, Reason.EXPIRED),
    ],
)
def test_a_time_is_compared_with_the_brokers(
    late_us: int, imported: bool, reason: Reason | None
) -> None:
    def check() -> None:
        check_time(OCCURRED_AT_US - late_us, OCCURRED_AT_US, HORIZON, imported=imported)

    if reason is None:
        check()
        return
    with pytest.raises(InvalidRecord) as refused:
        check()
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("occurred_at_us", "reason"),
    [(-1, Reason.EXPIRED), (9_214_646_400_000_001, Reason.IN_FUTURE)],
)
def test_a_time_that_no_store_holds_is_refused_whatever_the_broker_says(
    occurred_at_us: int, reason: Reason
) -> None:
    with pytest.raises(InvalidRecord) as refused:
        check_time(occurred_at_us, max(occurred_at_us, 0), HORIZON, imported=False)

    assert refused.value.reason is reason
