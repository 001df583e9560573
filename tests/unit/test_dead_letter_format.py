"""The dead letter record: what comes back is what went in, and nothing else opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec.dead_letter_format import (
    LetterId,
    open_dead_letter,
    read_label,
    seal_dead_letter,
)
from pipeline.domain.errors import Reason
from pipeline.domain.records import DeadLetter

KEY = bytes(range(32))


@dataclass(slots=True)
class ARecord:
    offset: int = 7
    timestamp: int = 1_700_000_000_000
    key: bytes | None = b"acme/u1"
    value: bytes | None = b"original"
    headers: Sequence[tuple[str, bytes]] = field(default_factory=list)


def a_letter(record: ARecord, reason: Reason = Reason.TRUNCATED) -> DeadLetter:
    return DeadLetter("audit.raw.authentication", 2, record, reason, "rule of the path")


RECORDS = st.builds(
    ARecord,
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(-1, 2**53),
    key=st.none() | st.binary(max_size=40),
    value=st.none() | st.binary(max_size=400),
    headers=st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.none() | st.binary())
    ),
)


@given(record=RECORDS, reason=st.sampled_from(Reason), key=st.binary(min_size=32, max_size=32))
def test_the_original_record_comes_back_whole(record: ARecord, reason: Reason, key: bytes) -> None:
    sealed = seal_dead_letter(a_letter(record, reason), key)

    original = open_dead_letter(*sealed, key)

    assert (original.key, original.value) == (record.key, record.value)
    assert list(original.headers) == record.headers
    assert original.label.reason == reason
    assert original.label.timestamp_ms == record.timestamp
    assert original.label.id == LetterId("audit.raw.authentication", 2, record.offset)


@given(record=RECORDS)
def test_the_label_is_read_without_the_key(record: ARecord) -> None:
    sealed = seal_dead_letter(a_letter(record), KEY)

    label = read_label(*sealed)

    assert str(label.id) == sealed.key.decode()
    assert label.size_bytes == len(record.value or b"")
    assert label.value_is_null == (record.value is None)


def test_an_empty_value_and_a_null_value_are_told_apart() -> None:
    empty = open_dead_letter(*seal_dead_letter(a_letter(ARecord(value=b"")), KEY), KEY)
    null = open_dead_letter(*seal_dead_letter(a_letter(ARecord(value=None)), KEY), KEY)

    assert (empty.value, null.value) == (b"", None)


def test_nothing_of_the_original_stands_in_clear() -> None:
    record = ARecord(
        key=b"acme/secret-person", value=b"secret-value", headers=[("secret-name", b"secret-more")]
    )

    sealed = seal_dead_letter(a_letter(record), KEY)

    everything = b"".join(
        [sealed.key, sealed.value, *(name.encode() + value for name, value in sealed.headers)]
    )
    assert b"secret" not in everything
    assert b"c2VjcmV0" not in everything  # nor in base64


@given(bit=st.integers(0, 8 * 36 - 1))
def test_a_changed_bit_is_noticed(bit: int) -> None:
    sealed = seal_dead_letter(a_letter(ARecord()), KEY)
    changed = bytearray(sealed.value)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8

    with pytest.raises(ValueError, match="does not open"):
        open_dead_letter(sealed.key, bytes(changed), sealed.headers, KEY)


def test_a_letter_does_not_open_at_another_position() -> None:
    sealed = seal_dead_letter(a_letter(ARecord(offset=7)), KEY)
    moved = [
        (name, b"8" if name == "audit-source-offset" else value) for name, value in sealed.headers
    ]

    with pytest.raises(ValueError, match="does not open"):
        open_dead_letter(sealed.key.replace(b":7", b":8"), sealed.value, moved, KEY)


def test_value_and_original_cannot_change_places() -> None:
    sealed = seal_dead_letter(a_letter(ARecord()), KEY)
    headers = dict(sealed.headers)
    swapped = {**headers, "audit-original": sealed.value}

    with pytest.raises(ValueError, match="does not open"):
        open_dead_letter(sealed.key, headers["audit-original"], list(swapped.items()), KEY)


@given(
    key=st.none() | st.binary(),
    value=st.none() | st.binary(),
    headers=st.lists(
        st.tuples(
            st.sampled_from(["audit-reason", "audit-source-topic", "audit-source-offset", "x"]),
            st.none() | st.binary(),
        )
    ),
)
def test_any_other_record_is_refused_as_no_dead_letter(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    with pytest.raises(ValueError, match="not a dead letter"):
        read_label(key, value, headers)


@given(
    topic=st.from_regex(r"[a-zA-Z0-9._-]{1,249}", fullmatch=True),  # as Kafka has them
    partition=st.integers(0, 10**6),
    offset=st.integers(0, 2**63),
    epoch=st.integers(1, 4),
)
def test_an_identity_reads_back(topic: str, partition: int, offset: int, epoch: int) -> None:
    identity = LetterId(topic, partition, offset, epoch)

    assert LetterId.parse(str(identity)) == identity


@pytest.mark.parametrize(
    "text", ["", "a:b:c", "topic:1", ":1:2", "t:-1:2", "t:1:²", "t:1:2:3:4", "t:1:2:x"]
)
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="topic:partition:offset"):
        LetterId.parse(text)


@pytest.mark.parametrize("text", ["t:01:2", "t:1:2:1"])
def test_an_identity_is_written_in_one_way(text: str) -> None:
    with pytest.raises(ValueError, match="leading zeros"):
        LetterId.parse(text)


def test_the_same_offset_of_a_replaced_topic_is_another_letter() -> None:
    first, second = (
        seal_dead_letter(replace(a_letter(ARecord()), epoch=epoch), KEY) for epoch in (1, 2)
    )

    assert first.key == b"audit.raw.authentication:2:7"
    assert second.key == b"audit.raw.authentication:2:7:2"
    assert open_dead_letter(*second, KEY).label.id == LetterId("audit.raw.authentication", 2, 7, 2)
    with pytest.raises(ValueError, match="not a dead letter"):
        read_label(first.key, second.value, second.headers)
