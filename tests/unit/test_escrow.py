"""Escrow entries on their way to the journal and the vault, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.errors import ConfigurationError
from pipeline.domain.escrow import (
    EscrowEntry,
    TenantEntry,
    decode_entries,
    decode_tenant,
    encode_entries,
    encode_tenant,
    escrow_name,
    journal_entries,
)
from tests.archive_support import an_entry

ENTRIES = st.builds(
    EscrowEntry,
    subject_hash=st.binary(max_size=32),
    generation=st.integers(1, 1000),
    subject_ref=st.binary(min_size=16, max_size=16),
    tenant=st.text(st.characters(exclude_categories=["Cs"])),
    id_type=st.text(st.characters(exclude_categories=["Cs"])),
    wrapped_key=st.binary(max_size=60),
    first_occurred_at_us=st.integers(-(2**62), 2**62),
)


@given(st.lists(ENTRIES), st.lists(ENTRIES))
def test_entries_come_back_as_they_were(some: list[EscrowEntry], more: list[EscrowEntry]) -> None:
    encoded = encode_entries(some) + encode_entries(more)

    assert decode_entries(encoded) == some + more


@pytest.mark.parametrize(
    "encoded", [b"x", b"{}", b"[]", b"1", b'{"v":2}', b'{"v":1,"subject_hash":"?"}', b"\xff"]
)
def test_anything_else_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="escrow entry"):
        decode_entries(encoded)


@pytest.mark.parametrize("value", [b"hello", b"{}", b"[1]", b"\xff", b'{"v":"x"}'])
def test_a_foreign_record_of_the_journal_is_told_and_passed_over(value: bytes) -> None:
    told: list[str] = []

    assert journal_entries(value, "audit.key-journal:0:7", told.append) == []
    assert told == ["audit.key-journal:0:7"]


def test_a_record_of_ours_in_the_journal_is_read_and_none_is_told() -> None:
    told: list[str] = []

    entries = [an_entry(1), an_entry(2)]
    assert journal_entries(encode_entries(entries), "place", told.append) == entries
    assert journal_entries(None, "place", told.append) == []
    assert told == []


def test_keys_that_another_release_wrote_are_never_passed_over() -> None:
    later = encode_entries([an_entry(1)]).replace(b'"v":1', b'"v":2')

    with pytest.raises(ConfigurationError, match=r"audit.key-journal:0:7.*release that wrote it"):
        journal_entries(later, "audit.key-journal:0:7", lambda _place: None)


@given(
    st.builds(
        TenantEntry,
        tenant=st.text(st.characters(exclude_categories=["Cs"])),
        name=st.text(st.characters(exclude_categories=["Cs"])),
        wrapped_key=st.binary(max_size=60),
        retention_days=st.none() | st.integers(1, 10_000),
    )
)
def test_a_tenant_comes_back_as_it_was(entry: TenantEntry) -> None:
    assert decode_tenant(encode_tenant(entry)) == entry


@pytest.mark.parametrize("encoded", [b"", b"x", b"{}", b"[]", b"\xff", b'{"v":2}'])
def test_anything_else_is_no_tenant(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="tenant entry"):
        decode_tenant(encoded)


def test_names_sort_by_time_of_writing() -> None:
    encoded = encode_entries([an_entry(1)])

    names = [escrow_name(encoded, written_at_us=at) for at in (5, 10, 1_800_000_000_000_000)]

    assert names == sorted(names)
    assert names[0].startswith("escrow/0000000000000000005-")
    assert names[0].endswith(".jsonl")
