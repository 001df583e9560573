"""What the vectors cannot say: values that JSON has not, and that no value is ever quoted."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from audit_sdk import InvalidEvent, encode, validate
from audit_sdk.codec import _fast
from audit_sdk.fast_codec import ODD

SECRET = "hunter2-4711"
SAMPLE: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "samples" / "audit_log_example.json").read_text(encoding="utf-8")
)["event"]


def test_a_tuple_is_a_list() -> None:
    listed = encode("data-access", SAMPLE | {"data_classes": ["contact", "health"]})

    assert encode("data-access", SAMPLE | {"data_classes": ("contact", "health")}) == listed


def test_half_a_surrogate_pair_is_refused() -> None:
    (problem,) = validate("data-access", SAMPLE | {"purpose": "a\ud800"})

    assert (problem.path, problem.rule) == ("purpose", "unicode")


@pytest.mark.parametrize(
    "value", [SECRET, [SECRET], {"a": SECRET}, {SECRET: "a" * 300}, f"{SECRET}\x00"]
)
@pytest.mark.parametrize(
    "field", ["tenant", "operation", "occurred_at", "labels", "resources", "actor"]
)
def test_no_value_stands_in_an_error(field: str, value: object) -> None:
    try:
        encode("data-access", SAMPLE | {field: value})
    except InvalidEvent as error:
        assert SECRET not in str(error).replace(f"actor.{SECRET}", "")


def test_a_family_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(LookupError, match=r"login.*authentication"):
        encode("login", {})


@pytest.mark.parametrize("event", [None, [], "event", 7])
def test_what_is_no_record_is_refused(event: Any) -> None:
    assert [problem.rule for problem in validate("data-access", event)] == ["type"]


def test_the_callers_event_is_left_as_it_was() -> None:
    event = json.loads(json.dumps(SAMPLE))

    encode("data-access", event)

    assert event == SAMPLE


def test_the_quick_way_takes_every_valid_vector_or_leaves_it_and_no_invalid_one() -> None:
    vectors = json.loads(
        (Path(__file__).parents[2] / "conformance" / "vectors.json").read_text(encoding="utf-8")
    )
    taken = 0
    for vector in vectors["valid"]:
        body = bytearray()
        with suppress(*ODD):
            _fast(vector["family"])(vector["event"], body)
            taken += 1
            assert body.hex() == vector["value"][10:]
    assert taken > 0.8 * len(vectors["valid"])
    for vector in vectors["invalid"]:
        with pytest.raises(InvalidEvent):
            encode(vector["family"], vector["event"])


def test_an_event_of_another_mapping_type_is_encoded_alike() -> None:
    assert encode("data-access", MappingProxyType(SAMPLE)) == encode("data-access", SAMPLE)
