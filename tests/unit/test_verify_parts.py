"""What a verification keeps, counts and plans, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compliance.absence import Absence
from pipeline.compliance.candidates import RUN_LEAVES, runs
from pipeline.compliance.findings import (
    LISTED_PER_SORT,
    ROLLED_BACK,
    Finding,
    Findings,
    Kind,
    Store,
)
from pipeline.compliance.repair_plan import RepairPlan
from pipeline.compliance.trail_reader import IntakeRow, LogState
from pipeline.compliance.verify_hours import count_documents, count_places, differing
from pipeline.compliance.verify_intake import Letters, _check_keys, _check_letters
from pipeline.compliance.verify_leaves import Packed, Where, differences
from pipeline.compliance.verify_state import LogProgress, Progress, load, save
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import Frontier
from pipeline.entrypoints.cli.verify_topics import _joined
from sinks.archive_facts import PLACE
from sinks.index_reader import Document

LOG = "audit.raw.authentication/0/1"
ERASURE = UUID(int=7)
NOW = datetime(2026, 11, 27, tzinfo=UTC)
STATE = LogState(1, LogName.parse(LOG), 7, 9, b"f" * 96, b"r" * 32, NOW, "topic-id", 5, 3)


def a_finding(leaf: int, **changes: object) -> Finding:
    facts = {"kind": Kind.CHANGED, "store": Store.LEDGER, "log": LOG, "what": "x", "leaf": leaf}
    return Finding(**{**facts, **changes})  # type: ignore[arg-type]


def test_every_finding_is_counted_and_the_first_are_listed() -> None:
    findings = Findings()

    findings.add_all([a_finding(leaf) for leaf in range(LISTED_PER_SORT + 50)])
    findings.add(a_finding(0, store=Store.INDEX))

    assert findings.total == LISTED_PER_SORT + 51
    assert findings.count(Kind.CHANGED, Store.LEDGER) == LISTED_PER_SORT + 50
    assert len(findings.listed) == LISTED_PER_SORT + 1


def test_a_finding_that_comes_again_on_resuming_counts_once() -> None:
    before = Findings()
    before.add(a_finding(4))
    findings = Findings.from_state(before.to_state())

    findings.add(a_finding(4))

    assert findings.total == 1


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    file, scope = tmp_path / "state.json", {"log": LOG}
    tree = Frontier().append([b"h" * 32] * 3)
    log = LogProgress(STATE, 3, tree, None, 2, 1, done=False, hours={Store.INDEX: {7: [2, 1]}})
    findings = Findings()
    findings.add(a_finding(4, event_id="e", place="p"))
    progress = Progress(scope, [log], findings, stubs=2)

    save(file, progress)
    again = load(file, scope)

    assert again is not None
    assert again.logs == [log]
    assert again.findings.listed == findings.listed
    assert again.findings.counts == findings.counts
    assert again.stubs == 2
    assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigurationError, match="other options"):
        load(file, {"log": "another"})


def places(*leaves: int, hour: int = 0) -> bytes:
    return b"".join([PLACE.pack(leaf, bytes([leaf]) * 16, hour * 3_600_000_000) for leaf in leaves])


def test_hours_that_differ_are_listed_by_store() -> None:
    hours: dict[Store, dict[int, list[int]]] = {}
    document = Document("i", "1", {"@timestamp": "2000-01-01T00:59:59.999Z", "audit.leaf_index": 1})

    count_places(hours, {Store.LEAVES: places(0, 1, 2), Store.LEDGER: places(0, 2)})
    count_places(hours, {Store.LEAVES: places(3, hour=1), Store.LEDGER: places(3, hour=1)})
    count_documents(hours.setdefault(Store.INDEX, {}), places(0, 1, 2), [document], durable=2)

    assert [(row["store"], row["hour"], row["leaves"], row["events"])
            for row in differing(LOG, hours)] == [
        ("ledger", "2000-01-01T00Z", 3, 2),
        ("index", "2000-01-01T00Z", 2, 1),
    ]  # fmt: skip


HASHES = {leaf: bytes([leaf]) * 32 for leaf in range(8)}


def packed(leaves: dict[int, int]) -> Packed:
    """Index → the event that stands there."""
    return Packed(
        b"".join([PLACE.pack(leaf, bytes([one]) * 16, 0) for leaf, one in leaves.items()]),
        b"".join([HASHES[one] for one in leaves.values()]),
    )


async def nowhere(_event_id: bytes) -> tuple[int, int] | None:
    return None


RIGHT = {leaf: leaf for leaf in range(6)}


@pytest.mark.anyio
@given(
    st.permutations(range(6)),
    st.sampled_from([Store.LEDGER, Store.LEAVES]),
    st.sets(st.integers(0, 5)),
)
async def test_whoever_differs_from_a_whole_archive_is_named_leaf_by_leaf(
    order: list[int], spoiled: Store, gone: set[int]
) -> None:
    stores = {
        Store.LEAVES: packed(RIGHT),
        Store.LEDGER: packed(RIGHT),
        Store.ARCHIVE: packed(RIGHT),
        spoiled: packed({leaf: one for leaf, one in enumerate(order) if leaf not in gone}),
    }

    problems = await differences(Where(LOG, 1, 0, 6), stores, nowhere)

    found = [one.finding() if isinstance(one, Absence) else one for one in problems]
    assert {(one.kind, one.store, one.leaf) for one in found} == {
        *((Kind.MISSING, spoiled, leaf) for leaf in gone),
        *(
            (Kind.REORDERED, spoiled, leaf)
            for leaf, one in enumerate(order)
            if leaf != one and leaf not in gone
        ),
    }


@pytest.mark.anyio
async def test_two_against_an_object_that_is_not_whole() -> None:
    stores = {
        Store.LEAVES: packed(RIGHT),
        Store.LEDGER: packed(RIGHT),
        Store.ARCHIVE: packed({**RIGHT, 3: 7}),
    }

    (finding,) = await differences(Where(LOG, 1, 0, 6, sound=False), stores, nowhere)

    assert (finding.store, finding.leaf) == (Store.ARCHIVE, 3)


def test_a_plan_leaves_alone_what_is_in_doubt() -> None:
    plan = RepairPlan()
    index = {"store": Store.INDEX, "place": "audit-events-2026.11/id"}
    for finding in (
        a_finding(1, **index),
        a_finding(2, kind=Kind.MISSING, store=Store.INDEX, place=None),
        a_finding(3, **{**index, "place": "audit-events-2026.11/other"}),
        a_finding(3),  # the ledger's own event is changed
        a_finding(0, store=Store.ARCHIVE, kind=Kind.MISSING, place="10-19"),
        a_finding(5, store=Store.VAULT),
    ):
        plan.note(finding)

    plan.settle()

    of_log = plan.logs[LOG]
    assert of_log.index == {1, 2}
    assert plan.remove == {LOG: {"audit-events-2026.11/id": 1}}
    assert (of_log.archive, of_log.vault) == ({10: 20}, {5})
    assert [one.leaf for one in plan.beyond_repair] == [3]


@pytest.mark.parametrize(
    "doubt",
    [
        {"store": Store.HEADS},
        {"store": Store.LEAVES},
        {"store": Store.LEDGER, "kind": Kind.MISSING, "place": ROLLED_BACK},
    ],
)
def test_a_log_in_doubt_is_not_repaired(doubt: dict[str, object]) -> None:
    plan = RepairPlan()
    plan.note(a_finding(1, store=Store.INDEX, place="i/d"))
    plan.note(a_finding(9, **doubt))

    plan.settle()

    assert plan.empty
    assert plan.logs[LOG].in_doubt


@given(st.sets(st.integers(0, 60)))
def test_runs_are_the_leaves_again(leaves: set[int]) -> None:
    found = runs(sorted(leaves))

    assert [leaf for first, count in found for leaf in range(first, first + count)] == sorted(
        leaves
    )
    assert all(sum(before) < first for before, (first, _) in pairwise(found))


def test_a_run_is_no_longer_than_one_read() -> None:
    assert runs(range(RUN_LEAVES + 1)) == [(0, RUN_LEAVES), (RUN_LEAVES, 1)]


def test_near_ranges_of_offsets_are_read_together() -> None:
    assert list(_joined([(0, 5), (7, 9), (50_000, 50_001)])) == [(0, 9), (50_000, 50_001)]
    assert list(_joined([])) == []


@pytest.mark.parametrize(
    ("since", "offsets", "missing"),
    [
        (None, [3, 4], 0),
        (None, [3], 1),
        (NOW + timedelta(hours=1), [], 0),  # the topic's retention has passed over it
        (NOW - timedelta(hours=1), [], 1),
    ],
)
def test_letters_are_looked_for_while_their_topic_keeps_them(
    since: datetime | None, offsets: list[int], missing: int
) -> None:
    findings = Findings()
    row = IntakeRow(0, 5, 0, 3, 0, 2, 0, restored=False, stored_at=NOW)

    _check_letters(STATE, row, Letters(offsets, since), findings)

    assert findings.count(Kind.MISSING, Store.DEAD_LETTERS) == missing


@pytest.mark.parametrize(
    ("known", "missing", "granted"),
    [
        ({None: 2}, 0, {}),
        ({None: 1}, 1, {}),
        ({}, 1, {}),
        ({None: 1, ERASURE: 1}, 0, {("erased", str(ERASURE), "letter"): 1}),
        ({None: 1, UUID(int=9): 1}, 1, {}),
    ],
)
def test_the_key_of_a_letter_is_there_or_an_erasure_destroyed_it(
    known: dict[UUID | None, int], missing: int, granted: dict[tuple[str, str, str], int]
) -> None:
    findings = Findings()
    row = IntakeRow(0, 5, 0, 3, 0, 2, 0, restored=False, stored_at=NOW)

    _check_keys(STATE, row, known, {ERASURE}.__contains__, findings)

    assert findings.count(Kind.MISSING, Store.DEAD_LETTERS) == missing
    assert dict(findings.granted) == granted
