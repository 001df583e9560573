"""Comparing sets of ids: what must be there, what is missing, what is beyond."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from pipeline.codec.dead_letter_format import LetterId
from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.compare import Comparison, StoreIds, _difference, expected_ids
from pipeline.entrypoints.cli.demo import DemoOutcome, sample_files, where_to_look
from pipeline.entrypoints.cli.importing import ImportSummary
from pipeline.entrypoints.cli.published import Published, ids_file, read_published
from pipeline.settings import load_settings

TOPIC = "audit.raw.authentication"
SETS = st.frozensets(st.integers(0, 30).map(lambda number: UUID(int=number).bytes))


def published(*numbers: int) -> list[Published]:
    """An event per number, at offsets 0, 1, …"""
    return [(UUID(int=number), LetterId(TOPIC, 0, at)) for at, number in enumerate(numbers)]


def an_outcome(*, stored: set[int], dead: set[int], mapped: int) -> DemoOutcome:
    """Events 0 … mapped-1 were published; some are stored, some offsets are dead letters."""
    everything = published(*range(mapped))
    positions = {LetterId(TOPIC, 0, offset): "expired" for offset in dead}
    leaves = frozenset(UUID(int=number).bytes for number in stored)
    expected = expected_ids(everything, positions)
    stores = tuple(_difference(StoreIds(name, leaves, 0), expected) for name in ("leaves", "index"))
    comparison = Comparison(stores, leaves, positions, {"expired": len(dead)})
    return DemoOutcome(ImportSummary(read=mapped, mapped=mapped), everything, comparison, {})


@given(store=SETS, reference=SETS)
def test_a_store_is_equal_only_if_the_sets_are(
    store: frozenset[bytes], reference: frozenset[bytes]
) -> None:
    found = _difference(StoreIds("index", store, 0), reference)

    assert found.equal == (store == reference)
    assert (reference - found.missing) | found.beyond == store


def test_an_id_that_stands_twice_is_a_difference() -> None:
    assert not _difference(StoreIds("index", frozenset(), 1), frozenset()).equal


def test_a_dead_letter_is_not_expected_unless_its_id_came_through_elsewhere() -> None:
    events = published(1, 2, 1)

    expected = expected_ids(events, {LetterId(TOPIC, 0, 1), LetterId(TOPIC, 0, 2)})

    assert expected == {UUID(int=1).bytes}


def test_what_was_published_reads_back_and_files_add_up(tmp_path: Path) -> None:
    path = tmp_path / "ids.tsv"
    for event_id, position in published(1, 2):
        with ids_file(path) as ids:
            ids.noting(str(event_id))(position.topic, position.partition, position.offset)

    assert list(read_published(path)) == published(1, 2)


@pytest.mark.parametrize("line", ["x", "00000000-0000-0000-0000-000000000001", "x\tt:1:2"])
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ids.tsv"
    path.write_text(line + "\n")

    with pytest.raises(ConfigurationError, match=r"ids.tsv:1"):
        list(read_published(path))


@pytest.mark.parametrize(
    ("stored", "dead", "passed"),
    [
        (set(range(10)), set(), True),
        (set(range(9)), {9}, True),
        (set(range(8)), {8, 9}, False),  # less than nine tenths of what was mapped
        (set(range(9)), set(), False),  # one is lost
        (set(range(11)), set(), False),  # one comes from nowhere
    ],
)
def test_the_demo_passes_only_if_nothing_is_lost_and_nine_tenths_are_stored(
    stored: set[int],
    dead: set[int],
    passed: bool,
) -> None:
    assert an_outcome(stored=stored, dead=dead, mapped=10).passed is passed


def test_the_demo_lists_what_is_not_stored_with_its_reason() -> None:
    outcome = an_outcome(stored=set(range(8)), dead={9}, mapped=10)

    assert [(row["position"], row["reason"]) for row in outcome.not_stored()] == [
        (f"{TOPIC}:0:8", "lost"),
        (f"{TOPIC}:0:9", "expired"),
    ]


def test_a_demo_of_nothing_does_not_pass() -> None:
    assert not an_outcome(stored=set(), dead=set(), mapped=0).passed


def test_the_samples_have_a_file_for_every_source() -> None:
    files = sample_files(Path(__file__).parents[2] / "samples")

    assert [source for source, _ in files] == ["aws-cloudtrail", "github", "okta"]


def test_addresses_are_shown_without_passwords() -> None:
    secret = SecretStr("postgresql://audit_writer:hush@db.example.com:5432/audit")
    settings = load_settings(database_url=secret)

    lines = "\n".join(where_to_look(settings))

    assert "hush" not in lines
    assert "audit_writer@db.example.com:5432/audit" in lines
