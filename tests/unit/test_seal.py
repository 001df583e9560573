"""Sealing: deterministic where it is hashed, erasable where it is not; RFC.md's worked example."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.canonical import canonical_json, may_hold_control
from pipeline.domain.merkle import leaf_hash
from pipeline.keys.seal import commitment, open_blob, seal
from pipeline.keys.subjects import NOBODY, Subject, SubjectKey, subject_message

EVENT = UUID("01939c1e-5a00-7000-8000-00000000002a")
KEY = SubjectKey(UUID("0b9d6c54-7c0e-4f2e-9c51-3f1f3a6a1d10"), bytes(range(32)))
OTHER = SubjectKey(UUID("7a3c2b10-1111-4222-8333-444455556666"), bytes(range(1, 33)))
CLEAR = {
    "event_id": str(EVENT),
    "occurred_at": 1764000000000000,
    "tenant": "acme",
    "action": "user.login",
    "outcome": "success",
    "severity": "informational",
    "actor.type": "user",
    "actor.tenant": "acme",
    "actor.id_type": "user_id",
    "imported": False,
}
VALUES = {"actor.id": "u-1001", "actor.name": 'Zoë "Z" Quinn'}
RFC = Path(__file__).parents[2] / "RFC.md"

scalars = st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans()
values = st.dictionaries(
    st.text(min_size=1),
    scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(), st.text(), max_size=3),
    max_size=5,
)


@given(clear=values, sealed=values)
def test_the_hot_path_writes_the_canonical_bytes(
    clear: dict[str, Any], sealed: dict[str, Any]
) -> None:
    done = seal("authentication", EVENT.bytes, clear, [(KEY, sealed)])

    commitments = json.loads(done.canonical)["sealed"]
    expected = {"clear": clear, "family": "authentication", "sealed": commitments, "v": 1}
    assert done.canonical == canonical_json(expected)
    assert done.leaf_hash == leaf_hash(done.canonical)


@given(sealed=values.filter(bool))
def test_every_value_is_committed_to_and_comes_back(sealed: dict[str, Any]) -> None:
    done = seal("authentication", EVENT.bytes, CLEAR, [(KEY, sealed)])

    commitments = json.loads(done.canonical)["sealed"][str(UUID(bytes=KEY.ref))]
    assert {path: b64decode(text) for path, text in commitments.items()} == {
        path: commitment(KEY, EVENT.bytes, path, value) for path, value in sealed.items()
    }
    assert open_blob(KEY, EVENT.bytes, done.blobs[0]) == sealed


def test_sealing_again_gives_the_same_leaf_and_other_blobs() -> None:
    one = seal("authentication", EVENT.bytes, CLEAR, [(KEY, VALUES)])
    two = seal("authentication", EVENT.bytes, CLEAR, [(KEY, VALUES)])

    assert one.leaf_hash == two.leaf_hash
    assert one.blobs[0].nonce != two.blobs[0].nonce


def test_no_sealed_value_stands_in_the_leaf() -> None:
    done = seal("authentication", EVENT.bytes, CLEAR, [(KEY, VALUES)])

    assert b"u-1001" not in done.canonical
    assert b"Quinn" not in done.canonical


def test_a_blob_opens_for_its_own_event_and_subject_only() -> None:
    blob = seal("authentication", EVENT.bytes, CLEAR, [(KEY, VALUES)]).blobs[0]

    with pytest.raises(ValueError, match="does not open"):
        open_blob(KEY, bytes(16), blob)
    with pytest.raises(ValueError, match="does not open"):
        open_blob(OTHER, EVENT.bytes, blob)
    with pytest.raises(ValueError, match="does not open"):
        open_blob(KEY, EVENT.bytes, blob._replace(subject_ref=OTHER.ref))


def test_values_of_an_erased_subject_are_sealed_to_nobody() -> None:
    done = seal("authentication", EVENT.bytes, CLEAR, [(None, VALUES)])

    sealed = json.loads(done.canonical)["sealed"]
    assert list(sealed) == [str(NOBODY)]
    assert {b64decode(text) for text in sealed[str(NOBODY)].values()} == {bytes(32)}
    assert done.blobs == []


def test_subject_messages_do_not_run_together() -> None:
    assert subject_message(Subject("ab", "c", "d")) != subject_message(Subject("a", "bc", "d"))


@given(text=st.text())
def test_no_control_character_is_missed_by_the_cheap_test(text: str) -> None:
    holds = any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in text)

    assert not holds or may_hold_control(canonical_json(text))


def test_the_worked_example_of_the_specification_is_true() -> None:
    done = seal("authentication", EVENT.bytes, CLEAR, [(KEY, VALUES)])
    example = RFC.read_text(encoding="utf-8")

    for shown in (
        done.canonical.decode(),
        done.leaf_hash.hex(),
        commitment(KEY, EVENT.bytes, "actor.id", VALUES["actor.id"]).hex(),
        KEY.commit_key.hex(),
        subject_message(Subject("acme", "user_id", "u-1001")).hex(),
    ):
        assert re.search(re.escape(shown), example), shown
