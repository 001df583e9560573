"""The vectors that all SDKs pass, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from audit_sdk import InvalidEvent, contract, encode, frame, murmur2, raw_key, validate

VECTORS = json.loads(
    (Path(__file__).parents[2] / "conformance" / "vectors.json").read_text(encoding="utf-8")
)


def named(vectors: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


@pytest.mark.parametrize("vector", named(VECTORS["valid"]))
def test_a_valid_event_has_the_same_bytes_key_and_partition(vector: dict[str, Any]) -> None:
    family, event = vector["family"], vector["event"]
    key = raw_key(event)

    assert frame(VECTORS["schema_id"], encode(family, event)).hex() == vector["value"]
    assert key.decode() == vector["key"]
    assert murmur2(key) % VECTORS["partitions"] == vector["partition"]
    assert contract().families[family].topic == vector["topic"]


@pytest.mark.parametrize("vector", named(VECTORS["invalid"]))
def test_an_invalid_event_names_path_and_rule(vector: dict[str, Any]) -> None:
    found = [
        [problem.path, problem.rule] for problem in validate(vector["family"], vector["event"])
    ]

    assert found == vector["problems"]
    with pytest.raises(InvalidEvent):
        encode(vector["family"], vector["event"])
