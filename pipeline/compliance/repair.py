"""Bringing index, archive and vault back to the ledger where a verification found a hole.

What is written is what the followers write, by their own code; every event is hashed again when it is
read. Each step may be repeated: a repair that was interrupted is run again, with a new verification.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

import orjson

from pipeline.compliance.archive_objects import PARENTS
from pipeline.compliance.candidates import runs
from pipeline.compliance.findings import Store
from pipeline.compliance.repair_plan import LogPlan, RepairPlan
from pipeline.domain.errors import ChainBroken
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import Frontier
from pipeline.domain.records import LeafRange
from sinks.archive import ArchiveDestination
from sinks.bulk import BulkClient
from sinks.index import IndexDestination

READ_LEAVES: Final = 500
REMOVED_AT_ONCE: Final = 1_000
_GONE: Final = 404


class ReadableLedger(Protocol):
    """``sinks.base.Ledger``, as far as a repair needs it."""

    async def read(self, log_id: int, first_leaf: int, *, limit: int) -> LeafRange: ...


@dataclass(frozen=True, slots=True)
class Stores:
    """What a repair writes with. ``open_values`` fills the events' sealed values, where keys are."""

    ledger: ReadableLedger
    open_values: Callable[[LeafRange], Awaitable[LeafRange]]
    bulk: BulkClient
    index: IndexDestination
    new_archive: Callable[[], ArchiveDestination]
    # Where ranges of blobs begin that the vault has, between two leaves.
    blob_starts: Callable[[LogName, int, int], Awaitable[list[int]]]


@dataclass(frozen=True, slots=True)
class Done:
    """What was done in one store for one log; ``root``: over the leaf hashes of exactly these leaves."""

    store: Store
    log: str
    leaves: int = 0
    first_leaf: int = 0
    last_leaf: int = 0
    root: str = ""
    removed: int = 0


class Repair:
    """Carries a settled plan out. ``log_ids``: of the logs that the ledger has."""

    def __init__(self, stores: Stores, log_ids: dict[str, int]) -> None:
        self._stores = stores
        self._log_ids = log_ids

    async def run(self, plan: RepairPlan) -> list[Done]:
        """Do it; what was done, store by store and log by log. Durable on return.

        Raises:
            ChainBroken: An event of the ledger is not what was hashed, or an object that is there
                contradicts it; nothing was done to that range.
            Unavailable: Some of it was done; verify and repair again.
        """
        done = []
        for log, places in sorted(plan.remove.items()):
            again = plan.logs.get(log, LogPlan()).index if log in self._log_ids else set()
            done.append(await self._index(log, sorted(again), sorted(places)))
        for log, of_log in sorted(plan.logs.items()):
            if of_log.index and log not in plan.remove:
                done.append(await self._index(log, sorted(of_log.index), []))
            if of_log.archive:
                done.append(await self._archive(log, of_log.archive))
            if of_log.vault:
                done.append(await self._vault(log, of_log))
        return [one for one in done if one.leaves or one.removed]

    async def _index(self, log: str, leaves: Sequence[int], places: Sequence[str]) -> Done:
        """Remove documents, then write leaves as followers do: a document that is there would stay."""
        removed = await self._remove(places)
        tree = Frontier()
        for first, count in runs(leaves):
            for found in [found async for found in self._read(log, first, first + count)]:
                opened = await self._stores.open_values(found)
                await self._stores.index.write([opened])
                tree = _grown(tree, found)
        return _done(Store.INDEX, log, leaves, tree, removed)

    async def _archive(self, log: str, ranges: dict[int, int]) -> Done:
        """Cut where the vault's objects are cut: one of them would else belong to nothing."""
        tree = Frontier()
        leaves: list[int] = []
        for first, end in sorted(ranges.items()):
            starts = await self._stores.blob_starts(LogName.parse(log), first + 1, end)
            for start, to in pairwise([first, *starts, end]):
                tree = await self._archive_range(log, start, to, tree)
            leaves += range(first, end)
        return _done(Store.ARCHIVE, log, leaves, tree, 0)

    async def _archive_range(self, log: str, first: int, end: int, tree: Frontier) -> Frontier:
        archive = self._stores.new_archive()  # holds nothing of another range
        durable = first
        async for found in self._read(log, first, end):
            stored = await archive.write([found])
            durable = max([durable, *stored.values()])
            tree = _grown(tree, found)
        stored = await archive.write([])
        if max([durable, *stored.values()]) < end:
            raise ChainBroken(log, f"the leaves {first} to {end - 1} could not be archived again")
        return tree

    async def _vault(self, log: str, plan: LogPlan) -> Done:
        """Write whole objects of blobs again: those that hold the plan's leaves."""
        archive = self._stores.new_archive()
        tree, written = Frontier(), list[int]()
        name, log_id = LogName.parse(log), self._log_ids[log]
        for leaf in sorted(plan.vault):
            if written and leaf <= written[-1]:
                continue  # the same object
            first, end = await archive.restore_blobs(log_id, name, leaf, plan.doubtful)
            async for found in self._read(log, first, end):
                tree = _grown(tree, found)
            written += range(first, end)
        return _done(Store.VAULT, log, written, tree, 0)

    async def _read(self, log: str, first: int, end: int) -> AsyncIterator[LeafRange]:
        leaf = first
        while leaf < end:
            limit = min(READ_LEAVES, end - leaf)
            found = await self._stores.ledger.read(self._log_ids[log], leaf, limit=limit)
            if not found.events:
                raise ChainBroken(log, f"the ledger does not give leaf {leaf} of its own")
            yield found
            leaf = found.next_leaf

    async def _remove(self, places: Sequence[str]) -> int:
        removed = 0
        for start in range(0, len(places), REMOVED_AT_ONCE):
            chosen = [place.partition("/") for place in places[start : start + REMOVED_AT_ONCE]]
            lines = [
                orjson.dumps({"delete": {"_index": index, "_id": document}}) + b"\n"
                for index, _slash, document in chosen
            ]
            answer = await self._stores.bulk.bulk(b"".join(lines))
            wrong = [item for item in answer.items if item.status >= 300 and item.status != _GONE]
            if wrong:
                raise ChainBroken("-", f"the index did not remove a document: {wrong[0].error}")
            removed += len(chosen)
        return removed


def _grown(tree: Frontier, found: LeafRange) -> Frontier:
    return tree.append_packed(b"".join([event.leaf_hash for event in found.events]), PARENTS)


def _done(store: Store, log: str, leaves: Sequence[int], tree: Frontier, removed: int) -> Done:
    if not leaves:
        return Done(store, log, removed=removed)
    return Done(store, log, len(leaves), leaves[0], leaves[-1], tree.root().hex(), removed)
