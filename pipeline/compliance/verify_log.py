"""Verifying one log: leaf after leaf through ledger, archive and index, root after root.

Memory is bounded by ``SPAN_LEAVES`` and one archive object. Whatever was verified stays verified: what
is kept between two spans is a position, two frontiers and counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from pipeline.compliance.absence import WITHOUT, Problem
from pipeline.compliance.archive_objects import PARENTS, ArchivedLeaves, blobs_within
from pipeline.compliance.archive_walk import ArchiveWalk
from pipeline.compliance.authority import Judged
from pipeline.compliance.findings import (
    Finding,
    Findings,
    Kind,
    Store,
)
from pipeline.compliance.trail_reader import BlobRow, EventRow, LogState, PackedLeaves
from pipeline.compliance.verify_checkpoints import SignedRoot
from pipeline.compliance.verify_ends import LogEnds, Parts
from pipeline.compliance.verify_hours import count_documents, count_places, differing
from pipeline.compliance.verify_leaves import (
    CheckedRows,
    Packed,
    Where,
    check_blobs,
    check_rows,
    compare_server,
    differences,
)
from pipeline.compliance.verify_state import LogProgress
from pipeline.domain.merkle import HASH_BYTES, Frontier
from sinks.archive_facts import PLACE, SERVER
from sinks.index_reader import Document, IndexReader

SPAN_LEAVES: Final = 20_000  # of small objects together; a larger object is a span of its own
HASHED_LEAVES: Final = 20_000  # where leaf hashes alone are read
ROWS_BYTES: Final = 8 * 1024 * 1024  # of events and blobs at once
ROWS_MAX: Final = 2_500
ROWS_FIRST: Final = 250  # until the first events say how large they are


class LogCheck:
    """Verifies the leaves ``begins`` to before ``ends`` of one log, and every root."""

    def __init__(
        self, parts: Parts, log: LogProgress, findings: Findings, *, begins: int, ends: int
    ) -> None:
        self._parts = parts
        self._log = log
        self._state: LogState = log.state
        self._name = str(log.state.name)
        self._findings = findings
        self._begins, self._ends = begins, ends
        self._rows_at_once = ROWS_FIRST
        self._signed: SignedRoot | None = None
        self._roots: AsyncIterator[SignedRoot] | None = None
        self._wrong_roots: set[Store] = set()

    async def run(self) -> None:
        """Verify from where the progress is.

        Raises:
            Unavailable: Run it again later, with the same progress.
        """
        log, state = self._log, self._state
        if self._parts.checkpoints is not None:
            self._roots = self._parts.checkpoints.roots(
                state.name, state.log_id, self._findings, from_size=log.next_leaf + 1
            )
            self._signed = await anext(self._roots, None)
        if self._begins > 0 or self._parts.archive is None:
            log.archive = None
        await self._hash_only(self._begins)
        if self._parts.archive is not None:
            await self._walk(self._parts.archive)
        await self._unarchived(self._ends)
        await self._hash_only(state.size)
        await self._finish()

    async def _walk(self, archive: ArchiveWalk) -> None:
        held: ArchivedLeaves | None = None
        async for found in archive.objects(self._state.name, self._log.next_leaf, self._ends):
            if isinstance(found, Finding):
                self._findings.add(found)
                continue
            self._findings.add_all(found.problems)
            found.problems = []
            begins = held.next_leaf if held else self._log.next_leaf
            if found.first_leaf < begins and (held or found.next_leaf <= begins):
                what = f"begins at leaf {found.first_leaf}, which the object before has"
                self._add(Kind.ADDED, Store.ARCHIVE, what, found.first_leaf)
                continue
            if held and found.first_leaf == held.next_leaf and _fit(held, found):
                held.join(found)
                continue
            if held:
                await self._span(held)
            await self._unarchived(min(found.first_leaf, self._ends))
            held = found
        if held:
            await self._span(held)

    async def _unarchived(self, end: int) -> None:
        """Leaves that no object holds."""
        first = self._log.next_leaf
        if first >= end:
            return
        due = min(self._state.archived, end)
        if self._parts.archive is not None and first < due:
            # Locked, and whatever expires stays there: nothing gives authority.
            what = f"no object holds the leaves {first} to {due - 1}: {WITHOUT}"
            self._add(Kind.MISSING, Store.ARCHIVE, what, first, place=f"{first}-{due - 1}")
        self._log.archive = None
        while self._log.next_leaf < end:
            await self._range(min(self._log.next_leaf + self._rows_at_once, end), None)

    async def _span(self, held: ArchivedLeaves) -> None:
        end = min(held.next_leaf, self._ends)
        while self._log.next_leaf < end:
            step = HASHED_LEAVES if not self._reads_rows else self._rows_at_once
            await self._range(min(self._log.next_leaf + step, end), held)

    async def _hash_only(self, end: int) -> None:
        """Leaf hashes without their events: what lies outside of the period."""
        while self._log.next_leaf < end:
            first, to = self._log.next_leaf, min(self._log.next_leaf + HASHED_LEAVES, end)
            leaves = await self._parts.reader.leaves(self._state.log_id, first, to)
            packed = Packed(leaves.places, leaves.hashes)
            where = Where(self._name, self._state.log_id, first, to)
            self._findings.add_all(
                (
                    await self._judge(
                        await differences(
                            where, {Store.LEAVES: packed}, self._parts.reader.place_of
                        )
                    )
                ).findings
            )
            await self._grow(first, to, self._all_hashes(leaves, first, to, []), None)

    @property
    def _reads_rows(self) -> bool:
        return self._parts.ledger or self._parts.index is not None

    async def _range(self, end: int, held: ArchivedLeaves | None) -> None:
        """Leaves from the progress up to ``end``, in every store."""
        first, reader, log_id = self._log.next_leaf, self._parts.reader, self._state.log_id
        where = Where(self._name, log_id, first, end, sound=held is None or held.sound)
        leaves = await reader.leaves(log_id, first, end)
        stores = {Store.LEAVES: Packed(leaves.places, leaves.hashes)}
        checked: CheckedRows | None = None
        blobs: list[BlobRow] = []
        problems: list[Problem] = []
        if self._reads_rows:
            rows = await reader.rows(log_id, first, end)
            blobs = await reader.blobs(log_id, first, end)
            self._size_steps(rows, blobs)
            checked = check_rows(where, rows, leaves.places)
            stores[Store.LEDGER] = checked.packed
            problems += checked.problems
        if held is not None:
            stores[Store.ARCHIVE] = Packed(
                held.part("places", PLACE.size, first, end),
                held.part("hashes", HASH_BYTES, first, end),
            )
            problems += held.absent(first, end, begins=self._begins)
        problems += await differences(where, stores, reader.place_of)
        documents: list[Document] = []
        if checked is not None:
            problems += self._blobs(where, checked, blobs, held)
        judged = await self._judge(problems)
        if checked is not None and self._parts.index is not None:
            documents = await self._index(self._parts.index, where, checked, blobs, judged)
        self._findings.add_all(judged.findings)
        hashes = self._all_hashes(leaves, first, end, list(stores.values())[1:])
        archived = held.part("hashes", HASH_BYTES, first, end) if held is not None else None

        def count() -> None:
            places = {store: one.places for store, one in stores.items()}
            count_places(self._log.hours, places, judged.expired)
            self._findings.granted += judged.granted
            if checked is not None and self._parts.index is not None:
                hours = self._log.hours.setdefault(Store.INDEX, {})
                durable = self._state.indexed
                count_documents(
                    hours, leaves.places, documents, durable=durable, expired=judged.expired
                )

        await self._grow(first, end, hashes, archived, count)

    def _size_steps(self, rows: list[EventRow], blobs: list[BlobRow]) -> None:
        if rows:
            size = sum(len(row.canonical) for row in rows) + sum(
                len(one.ciphertext) for one in blobs
            )
            fit = ROWS_BYTES * len(rows) // max(size, 1)
            self._rows_at_once = max(min(fit, ROWS_MAX, 4 * self._rows_at_once), 1)

    def _blobs(
        self, where: Where, checked: CheckedRows, blobs: list[BlobRow], held: ArchivedLeaves | None
    ) -> list[Problem]:
        found: list[Problem] = []
        times = {row.leaf: row.place[-8:] for row in checked.rows}
        vaulted = None
        if held is not None:
            vaulted = blobs_within(held.blobs, where.first, where.end)
            server = held.part("server", SERVER.size, where.first, where.end)
            found += compare_server(where, checked.rows, checked.server, server)
        return found + check_blobs(where, checked.sealed, blobs, times, vaulted)

    async def _index(
        self,
        index: IndexReader,
        where: Where,
        checked: CheckedRows,
        blobs: list[BlobRow],
        judged: Judged,
    ) -> list[Document]:
        """Documents beside the events of the ledger, but for those in doubt; adds to ``judged``."""
        check = self._parts.documents
        found = await index.of_leaves(self._name, where.first, where.end, whole=check.sources)
        events, unopened = await check.events(where, checked.rows, checked.packed.hashes, blobs)
        judged.join(await self._judge(unopened))
        doubtful = judged.doubtful | {
            one.leaf for one in judged.findings if one.store in (Store.LEDGER, Store.LEAVES)
        }
        by_id = {event.event_id: event for event in events}
        wanted = {
            row.leaf: by_id[event_id]
            for row in checked.rows
            if (event_id := PLACE.unpack(row.place)[1]) in by_id and row.leaf not in doubtful
        }
        late = {row.leaf: row.late for row in checked.rows}
        durable = self._state.indexed
        compared = check.compare(where, wanted, late, found, durable=durable)
        judged.join(await self._judge(compared))
        return found

    async def _judge(self, problems: Sequence[Problem]) -> Judged:
        return await self._parts.authorities.judge(self._state.log_id, problems)

    def _all_hashes(
        self, leaves: PackedLeaves, first: int, end: int, others: list[Packed]
    ) -> bytes | None:
        """The leaf hashes of a range; where ``leaves`` lacks some, those that another store has."""
        if leaves.count == end - first:
            return leaves.hashes
        known: dict[int, bytes] = {}
        for packed in [*reversed(others), Packed(leaves.places, leaves.hashes)]:
            for number, (leaf, _id, _at) in enumerate(PLACE.iter_unpack(packed.places)):
                known[leaf] = packed.hashes[number * HASH_BYTES : (number + 1) * HASH_BYTES]
        if any(leaf not in known for leaf in range(first, end)):
            return None
        return b"".join([known[leaf] for leaf in range(first, end)])

    async def _grow(
        self,
        first: int,
        end: int,
        leaves: bytes | None,
        archived: bytes | None,
        count: Callable[[], None] = lambda: None,
    ) -> None:
        """Append to both trees, compare their roots where one was signed, and only then move on: a failure
        on the way leaves the progress as it was. ``count`` is called when nothing can fail any more.
        """
        log = self._log
        tree = log.leaves if leaves is not None else None
        whole = archived is not None and len(archived) == (end - first) * HASH_BYTES
        archive = log.archive if whole else None
        size, compared, at = log.signed_size, 0, first
        while at < end:
            signed = self._signed
            to = min(signed.size, end) if signed is not None and signed.size > at else end
            part = slice((at - first) * HASH_BYTES, (to - first) * HASH_BYTES)
            if tree is not None and leaves is not None:
                tree = tree.append_packed(leaves[part], PARENTS)
            if archive is not None and archived is not None:
                archive = archive.append_packed(archived[part], PARENTS)
            if signed is not None and signed.size == to and self._roots is not None:
                self._compare_root(signed, Store.LEAVES, tree)
                self._compare_root(signed, Store.ARCHIVE, archive)
                size, compared = signed.size, compared + 1
                self._signed = await anext(self._roots, None)
            at = to
        count()
        log.leaves, log.archive, log.next_leaf = tree, archive, end
        log.signed_size, log.checkpoints = size, log.checkpoints + compared
        self._parts.on_span(end - first)

    def _compare_root(self, signed: SignedRoot, store: Store, tree: Frontier | None) -> None:
        """Said once per store: from a wrong root on, all are."""
        if tree is None or store in self._wrong_roots or tree.root() == signed.root:
            return
        self._wrong_roots.add(store)
        what = f"the root of the first {signed.size} leaves is not the one that was signed"
        self._add(Kind.INCONSISTENT, store, what, signed.size - 1)

    async def _finish(self) -> None:
        log, state = self._log, self._state
        tree = log.leaves
        if tree is None:
            what = "the root cannot be computed: leaves are missing"
            self._add(Kind.INCONSISTENT, Store.HEADS, what)
        elif tree.root() != state.root or tree.to_bytes() != state.frontier:
            what = f"root or frontier is not that of its {state.size} leaves"
            self._add(Kind.CHANGED, Store.HEADS, what)
        ends = LogEnds(self._parts, log, self._findings)
        if self._parts.checkpoints is not None and self._roots is not None:
            await ends.checkpoints(self._parts.checkpoints, self._signed, self._roots)
        await ends.rows()
        if self._parts.archive is not None:
            await ends.archive(self._parts.archive)
        self._log.differing = differing(self._name, self._log.hours)
        self._log.hours = {}

    def _add(
        self,
        kind: Kind,
        store: Store,
        what: str,
        leaf: int | None = None,
        *,
        place: str | None = None,
    ) -> None:
        self._findings.add(Finding(kind, store, self._name, what, leaf, place=place))


def _fit(held: ArchivedLeaves, found: ArchivedLeaves) -> bool:
    leaves = found.next_leaf - held.first_leaf
    return leaves <= SPAN_LEAVES and held.sound and found.sound
