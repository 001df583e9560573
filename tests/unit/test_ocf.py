"""Hand-written container files against a library that reads them."""

from __future__ import annotations

from io import BytesIO

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.logs import LogName
from sinks import ocf
from sinks.archive_format import (
    BLOB_SCHEMA,
    LEAF_SCHEMA,
    ObjectInfo,
    archive_key,
    blob_datums,
    blobs_key,
    leaf_datums,
)
from tests.archive_support import an_event

LONGS = st.integers(-(2**63), 2**63 - 1)
SYNC = bytes(range(16))


def written(number: int) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, {"type": "long"}, number)
    return stream.getvalue()


@given(LONGS)
def test_a_long_is_encoded_as_the_library_does(number: int) -> None:
    assert ocf.encode_long(number) == written(number)


@given(st.integers(-(2**40), 2**60), st.lists(st.integers(0, 2**30), max_size=20))
def test_many_longs_are_encoded_as_each_alone(first: int, steps: list[int]) -> None:
    numbers = [first + step for step in steps]

    assert ocf.encode_longs(numbers) == [written(number) for number in numbers]
    assert ocf.encode_times(numbers) == [written(number) for number in numbers]


@pytest.mark.parametrize("number", [0x1FFF, 0x2000, 0x7FFFFFF, 0x8000000, 0x1FFFFF, 0x200000])
def test_longs_at_the_table_borders(number: int) -> None:
    numbers = [number - 1, number, number + 1]

    assert ocf.encode_longs(numbers) == [written(each) for each in numbers]
    assert ocf.encode_times(numbers) == [written(each) for each in numbers]


def test_the_library_reads_leaves_from_a_file() -> None:
    events = [an_event(leaf) for leaf in range(300)]
    events[7].actor_ref = None
    body = ocf.header(LEAF_SCHEMA, SYNC)
    body += ocf.block(leaf_datums(events[:200], 5), 200, SYNC)
    body += ocf.block(leaf_datums(events[200:], 205), 100, SYNC)

    read = list(fastavro.reader(BytesIO(body)))

    assert [datum["leaf_index"] for datum in read] == list(range(5, 305))  # type: ignore[index,call-overload]
    for datum, event in zip(read, events, strict=True):
        assert isinstance(datum, dict)
        assert datum["event"] == event.canonical
        assert datum["event_id"] == event.event_id
        assert datum["leaf_hash"] == event.leaf_hash
        assert datum["actor_ref"] == event.actor_ref
        assert datum["source_offset"] == event.offset
        assert datum["schema_id"] == event.schema_id
        assert round(datum["occurred_at"].timestamp() * 1e6) == event.occurred_at_us
        assert round(datum["stored_at"].timestamp() * 1e6) == event.stored_at_us
        assert round(datum["broker_timestamp"].timestamp() * 1e3) == event.broker_timestamp_ms


def test_the_library_reads_blobs_from_a_file() -> None:
    events = [an_event(leaf, subject=leaf % 3) for leaf in range(50)]
    events[3].blobs = ()
    events[4].blobs = (*events[4].blobs, *events[5].blobs)
    parts = blob_datums(events, 1_000_000).pieces
    body = ocf.header(BLOB_SCHEMA, SYNC) + ocf.block(parts, 50, SYNC)

    read = list(fastavro.reader(BytesIO(body)))

    expected = [
        {
            "leaf_index": 1_000_000 + leaf,
            "subject_ref": blob.subject_ref,
            "nonce": blob.nonce,
            "ciphertext": blob.ciphertext,
        }
        for leaf, event in enumerate(events)
        for blob in event.blobs
    ]
    assert read == expected


def test_blocks_come_back_as_they_were_written() -> None:
    body = ocf.header(BLOB_SCHEMA, SYNC) + ocf.block([b"ab", b"c"], 2, SYNC)

    assert list(ocf.blocks(body)) == [(2, b"abc")]


@given(st.data())
def test_a_damaged_file_is_refused_or_read_never_anything_else(data: st.DataObject) -> None:
    events = [an_event(0), an_event(1)]
    body = bytearray(ocf.header(LEAF_SCHEMA, SYNC) + ocf.block(leaf_datums(events, 0), 2, SYNC))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    body = body[: data.draw(st.integers(0, len(body)))]

    try:
        list(ocf.blocks(bytes(body)))
    except ValueError as refusal:
        assert str(refusal)  # noqa: PT017


@given(
    st.integers(0, 2**62),
    st.integers(1, 10**6),
    st.integers(-(2**60), 2**60),
    st.binary(min_size=32, max_size=32),
)
def test_metadata_comes_back_as_it_was(first: int, count: int, time_us: int, root: bytes) -> None:
    info = ObjectInfo(
        name=LogName("audit.raw.data-access", 3, 2),
        first_leaf=first,
        last_leaf=first + count - 1,
        first_offset=first,
        next_offset=first + count,
        min_occurred_at_us=time_us,
        max_occurred_at_us=time_us + 1,
        root=root,
        records=count,
        body_sha256=root,
    )

    assert ObjectInfo.from_metadata(info.to_metadata()) == info


@pytest.mark.parametrize("metadata", [{}, {"audit-format": "2"}, {"audit-format": "1"}])
def test_foreign_metadata_is_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"format|missing"):
        ObjectInfo.from_metadata(metadata)


def test_keys_sort_by_first_leaf() -> None:
    name = LogName("audit.raw.authentication", 0)

    keys = [archive_key(name, leaf) for leaf in (0, 9, 10, 10**18)]

    assert keys == sorted(keys)
    assert keys[1] == "archive/audit.raw.authentication/0/1/0000000000000000009.avro"
    assert blobs_key(name, 9) == "blobs/audit.raw.authentication/0/1/0000000000000000009.avro"
