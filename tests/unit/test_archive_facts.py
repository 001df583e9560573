"""Archived leaves read back for a comparison: the compiled form beside the form in Python."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.merkle import Frontier, leaf_hash, packed_parents
from pipeline.domain.records import SealedBlob, SealedEvent
from pipeline.native import native
from sinks import archive_facts
from sinks.archive_facts import BLOB, PLACE, SEALED, SERVER
from sinks.archive_format import blob_datums, leaf_datums
from sinks.ocf import encode_long
from sinks.rows import POSTGRES_EPOCH_US
from tests.archive_support import an_event

compiled = pytest.mark.skipif(native is None, reason="the compiled form is not built here")

EVENTS = [an_event(leaf, subject=leaf % 3) for leaf in range(8)]
EVENTS[2].blobs = ()
EVENTS[5].actor_ref = None


def block_of(events: list[SealedEvent], first_leaf: int = 7) -> bytes:
    return b"".join(leaf_datums(events, first_leaf))


def both(block: bytes, count: int) -> list[object]:
    """What the two forms say, refusals too."""
    said: list[object] = []
    for form in (archive_facts.plain_leaves, native.archived_leaves):
        try:
            said.append(tuple(form(block, count)))
        except ValueError as error:
            said.append(str(error))
    return said


def test_facts_are_those_of_the_leaves() -> None:
    found = archive_facts.plain_leaves(block_of(EVENTS), len(EVENTS))

    epoch = POSTGRES_EPOCH_US
    assert [PLACE.unpack(found.places[at : at + 32]) for at in range(0, 256, 32)] == [
        (leaf, event.event_id, event.occurred_at_us - epoch) for leaf, event in enumerate(EVENTS, 7)
    ]
    assert list(SERVER.iter_unpack(found.server)) == [
        (
            event.stored_at_us - epoch,
            event.broker_timestamp_ms * 1000 - epoch,
            event.schema_id,
            event.offset,
            event.actor_ref is not None,
            event.actor_ref or bytes(16),
        )
        for event in EVENTS
    ]
    assert found.hashes == b"".join(event.leaf_hash for event in EVENTS)
    assert [ref for _leaf, ref in SEALED.iter_unpack(found.sealed)] == [
        event.blobs[0].subject_ref if event.blobs else an_event(2, subject=2).blobs[0].subject_ref
        for event in EVENTS
    ]
    assert found.wrong == []


def test_an_event_that_is_not_what_was_hashed_is_named_by_its_number() -> None:
    block = block_of(EVENTS)
    canonical = EVENTS[3].canonical
    changed = canonical.replace(b'"outcome":"success"', b'"outcome":"failure"')

    found = archive_facts.plain_leaves(block.replace(canonical, changed), len(EVENTS))

    assert found.wrong == [3]
    assert found.hashes[3 * 32 : 4 * 32] == leaf_hash(changed)


@pytest.mark.parametrize(
    "canonical",
    [
        b"{}",
        b"[]",
        b"nothing",
        b'{"clear":{"event_id":"x","occurred_at":0},"sealed":{}}',
        b'{"clear":{"event_id":1,"occurred_at":"0"},"sealed":[]}',
    ],
)
def test_what_is_no_sealed_event_is_wrong_even_with_its_own_hash(canonical: bytes) -> None:
    event = an_event(0)
    event.canonical, event.leaf_hash = canonical, leaf_hash(canonical)

    assert archive_facts.leaves(block_of([event]), 1).wrong == [0]
    assert archive_facts.plain_leaves(block_of([event]), 1).wrong == [0]


def test_another_id_or_time_beside_the_event_is_wrong() -> None:
    events = [an_event(leaf) for leaf in range(3)]
    events[0].event_id = bytes(16)
    events[2].occurred_at_us += 1

    assert archive_facts.leaves(block_of(events), 3).wrong == [0, 2]
    assert archive_facts.plain_leaves(block_of(events), 3).wrong == [0, 2]


@compiled
@given(
    st.lists(st.integers(0, 7), max_size=6),
    st.integers(0, 2**62),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3),
    st.integers(-3, 3),
)
def test_the_two_forms_say_the_same_of_any_bytes(
    chosen: list[int], first_leaf: int, flips: list[tuple[int, int]], miscounted: int
) -> None:
    block = bytearray(block_of([EVENTS[number] for number in chosen], first_leaf))
    for place, value in flips:
        if block:
            block[place % len(block)] = value
    count = max(len(chosen) + miscounted, 0)

    plain, native_form = both(bytes(block), count)

    assert native_form == plain


@compiled
@given(st.binary(max_size=200), st.integers(0, 3))
def test_the_two_forms_refuse_the_same_garbage(block: bytes, count: int) -> None:
    plain, native_form = both(block, count)

    assert native_form == plain


@compiled
@given(st.integers(), st.binary(max_size=12))
def test_longs_have_one_reading(number: int, tail: bytes) -> None:
    plain, native_form = both(encode_long(number) + tail, 1)

    assert native_form == plain


@compiled
@given(
    st.lists(st.integers(0, 7), max_size=6),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3),
)
def test_blobs_have_one_reading_too(chosen: list[int], flips: list[tuple[int, int]]) -> None:
    given_blobs = blob_datums([EVENTS[number] for number in chosen], 3)
    block = bytearray(b"".join(given_blobs.pieces))
    for place, value in flips:
        if block:
            block[place % len(block)] = value
    said: list[bytes | str] = []

    for form in (archive_facts.plain_blobs, native.archived_blobs):
        try:
            said.append(form(bytes(block), given_blobs.datums))
        except ValueError as error:
            said.append(str(error))

    assert said[0] == said[1]


def test_a_blob_is_known_by_leaf_subject_and_a_hash_of_its_bytes() -> None:
    event = an_event(0)
    event.blobs = (SealedBlob(b"r" * 16, b"n" * 12, b"ciphertext"),)

    found = archive_facts.blobs(b"".join(blob_datums([event], 9).pieces), 1)

    assert BLOB.unpack(found) == (9, b"r" * 16, sha256(b"n" * 12 + b"ciphertext").digest())


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=70), st.integers(0, 70))
def test_packed_leaves_give_the_frontier_of_the_same_leaves(hashes: list[bytes], cut: int) -> None:
    expected = Frontier().append(hashes)

    forms = [packed_parents] if native is None else [packed_parents, native.packed_parents]

    for form in forms:
        first = Frontier().append_packed(b"".join(hashes[:cut]), form)
        assert first.append_packed(b"".join(hashes[cut:]), form) == expected


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9), st.integers(0, 2**62))
def test_columns_are_those_of_the_records(indexes: list[int], first: int) -> None:
    places = b"".join(
        [PLACE.pack(index, bytes(16), number) for number, index in enumerate(indexes)]
    )
    following = b"".join([PLACE.pack(first + at, bytes(16), 0) for at in range(len(indexes))])

    assert list(archive_facts.longs(places, PLACE.size, 0)) == indexes
    assert list(archive_facts.longs(places, PLACE.size, 24)) == list(range(len(indexes)))
    assert archive_facts.indexes_follow(following, first)
    assert archive_facts.indexes_follow(places, first) is (places[:8] == following[:8] and [
        PLACE.unpack(places[at : at + 32])[0] for at in range(0, len(places), 32)
    ] == list(range(first, first + len(indexes))))  # fmt: skip
