"""Comparing the stores: the sets of event ids in ledger, index and archive, and what was published.

The reference is what was published, where that is known, else the leaves. Every archived object is
verified as it is read. Ids are held as 16 bytes each: a million of them in five sets take about
500 MB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from psycopg.rows import scalar_row

from pipeline.domain.errors import ChainBroken
from pipeline.domain.logs import FIRST_EPOCH, LogName
from pipeline.entrypoints.cli.database import connected
from pipeline.entrypoints.cli.dead_letters import Selection, read_letters, select
from pipeline.entrypoints.cli.output import Row
from pipeline.entrypoints.cli.published import Published, read_published
from pipeline.entrypoints.cli.stores import archive_reader, object_store, searching
from sinks.archive_reader import ArchiveReader

if TYPE_CHECKING:
    from pipeline.codec.dead_letter_format import LetterId
    from pipeline.settings import Settings

LISTED_MAX: Final = 20
_PAGE: Final = 10_000
_KEEP_ALIVE: Final = "2m"

OnIds = Callable[[int], None]  # told how many ids more were read


def _unwatched(_ids: int) -> None:
    """Nobody wants to know."""


Verified = dict[str, list[bytes]]  # log → ids of its archived leaves, from leaf 0 on

# As bytes, in binary: an object per id costs more than the server's work.
SELECT_LEAVES: Final = "SELECT uuid_send(event_id) FROM leaves"
SELECT_ROWS: Final = "SELECT uuid_send(event_id) FROM audit_logs"
# Logs of topics that are gone: their offsets mean other records now.
SELECT_REPLACED: Final = """
    SELECT topic, partition, epoch FROM log_heads AS head
    WHERE topic_id <> (
        SELECT newest.topic_id FROM log_heads AS newest
        WHERE (newest.topic, newest.partition) = (head.topic, head.partition)
        ORDER BY newest.epoch DESC LIMIT 1
    )
"""
# Leaves whose events have expired: they are in `leaves` and in the archive, and nowhere else.
SELECT_EXPIRED: Final = """
    SELECT uuid_send(leaves.event_id) FROM removal_request AS expiry
    JOIN leaves ON leaves.occurred_at >= expiry.month::timestamp AT TIME ZONE 'UTC'
        AND leaves.occurred_at < (expiry.month + interval '1 month') AT TIME ZONE 'UTC'
    JOIN log_heads USING (log_id)
    WHERE expiry.kind = 'expiry' AND expiry.tenant IS NULL AND expiry.state = 'done'
        AND leaves.leaf_index < (expiry.bounds ->> log_heads.name)::bigint
"""
SELECT_LOGS: Final = "SELECT log_id, name FROM log_heads ORDER BY name"


@dataclass(frozen=True, slots=True)
class StoreIds:
    """The ids of one store, and how many stand in it more than once."""

    store: str
    ids: frozenset[bytes]
    twice: int


@dataclass(frozen=True, slots=True)
class StoreDifference:
    """One store beside the reference: what it lacks and what it has beyond it."""

    store: str
    events: int
    twice: int
    missing: frozenset[bytes]
    beyond: frozenset[bytes]

    @property
    def equal(self) -> bool:
        """The same set, each once."""
        return not (self.missing or self.beyond or self.twice)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome. ``reasons`` counts the dead letters that were published, by reason."""

    stores: tuple[StoreDifference, ...]
    leaves: frozenset[bytes]
    dead: dict[LetterId, str] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Every store has the same set."""
        return all(store.equal for store in self.stores)

    def rows(self) -> list[Row]:
        """For output."""
        return [
            {
                "store": store.store,
                "events": store.events,
                "twice": store.twice,
                "missing": len(store.missing),
                "beyond": len(store.beyond),
                "state": "equal" if store.equal else "differs",
            }
            for store in self.stores
        ]

    def difference_rows(self) -> list[Row]:
        """For output: the first few ids of each difference."""
        return [
            {"store": store.store, "difference": name, "event_id": str(UUID(bytes=event_id))}
            for store in self.stores
            for name, ids in (("missing", store.missing), ("beyond", store.beyond))
            for event_id in sorted(ids)[:LISTED_MAX]
        ]

    def as_dict(self) -> dict[str, Any]:
        """For output."""
        return {
            "equal": self.equal,
            "stores": self.rows(),
            "differences": self.difference_rows(),
            "dead_letters": self.reasons,
        }


def compare_stores(
    settings: Settings,
    ids_file: Path | None = None,
    *,
    before: frozenset[bytes] = frozenset(),
    verified: Verified | None = None,
    on_ids: OnIds = _unwatched,
) -> Comparison:
    """Read all stores and compare. Meant for when everything has drained.

    With ``ids_file`` the trail must hold ``before`` and what was published, less dead letters.
    Archived leaves that ``verified`` has are not read again (objects are locked, and it is always
    their first version that is read); those that are read now are added to it.

    Raises:
        Unavailable: A store does not answer.
        ChainBroken: An archived object is not what was hashed.

    """
    published = list(read_published(ids_file)) if ids_file is not None else None
    leaves = ledger_ids(settings, "leaves", SELECT_LEAVES, on_ids)
    stores = [
        leaves,
        ledger_ids(settings, "ledger", SELECT_ROWS, on_ids),
        index_ids(settings, on_ids),
        archive_ids(settings, {} if verified is None else verified, on_ids),
    ]
    dead: dict[LetterId, str] = {}
    expired = ledger_ids(settings, "expired", SELECT_EXPIRED, on_ids).ids
    stores = [replace(store, ids=store.ids - expired) for store in stores]
    reference = leaves.ids - expired
    if published is not None:
        dead = dead_positions(settings)
        reference = (expected_ids(published, dead) | before) - expired
        stores.insert(0, StoreIds("published", reference, 0))
    differences = [_difference(store, reference) for store in stores]
    reasons: dict[str, int] = {}
    for _, position in published or ():
        if position in dead:
            reasons[dead[position]] = reasons.get(dead[position], 0) + 1
    return Comparison(tuple(differences), leaves.ids, dead, reasons)


def expected_ids(published: Collection[Published], dead: Collection[LetterId]) -> frozenset[bytes]:
    """Ids that the trail must hold: published at a position that is no dead letter."""
    return frozenset(event_id.bytes for event_id, position in published if position not in dead)


def dead_positions(settings: Settings) -> dict[LetterId, str]:
    """The source position and reason of each dead letter, without its epoch, which who publishes is not
    told: of a topic that was replaced, only letters of the topic that is there now.
    """
    with connected(settings) as connection:
        ended = {
            (row["topic"], row["partition"], row["epoch"])
            for row in connection.execute(SELECT_REPLACED).fetchall()
        }
    found = {}
    for letter in select(read_letters(settings), Selection()):
        identity = letter.label.id
        if (identity.topic, identity.partition, identity.epoch) not in ended:
            found[identity._replace(epoch=FIRST_EPOCH)] = letter.label.reason
    return found


def ledger_ids(settings: Settings, store: str, query: str, on_ids: OnIds = _unwatched) -> StoreIds:
    """The ids that one of the ledger's tables holds."""
    with (
        connected(settings) as connection,
        connection.cursor(store, row_factory=scalar_row) as cursor,
    ):
        cursor.itersize = _PAGE
        # An export of a large trail takes longer than a call may.
        connection.execute("SET LOCAL statement_timeout = 0")
        cursor.execute(query, binary=True)
        return _collect(store, cursor, on_ids)


def index_ids(settings: Settings, on_ids: OnIds = _unwatched) -> StoreIds:
    """The ids of all documents, from one point in time after a refresh."""
    with searching(settings) as client:
        pattern = f"{settings.index_prefix}-*"
        client.indices.refresh(index=pattern)
        point = client.open_point_in_time(index=pattern, keep_alive=_KEEP_ALIVE)["id"]

        def ids() -> Iterator[bytes]:
            after: list[Any] | None = None
            while True:
                page = client.search(
                    pit={"id": point, "keep_alive": _KEEP_ALIVE},
                    size=_PAGE,
                    sort=[{"_shard_doc": "asc"}],
                    search_after=after,
                    source=False,
                    track_total_hits=False,
                )
                hits = page["hits"]["hits"]
                if not hits:
                    return
                after = hits[-1]["sort"]
                for hit in hits:
                    yield bytes.fromhex(hit["_id"].replace("-", ""))

        try:
            return _collect("index", ids(), on_ids)
        finally:
            client.close_point_in_time(id=point)


def archive_ids(settings: Settings, verified: Verified, on_ids: OnIds = _unwatched) -> StoreIds:
    """The ids of all archived leaves; each object that is not in ``verified`` is, and that ranges abut.

    Raises:
        ChainBroken: An object is not what was hashed, or leaves are missing between two objects.

    """
    with connected(settings) as connection:
        logs = connection.execute(SELECT_LOGS).fetchall()
    return _collect("archive", asyncio.run(_archived(settings, logs, verified, on_ids)))


async def _archived(
    settings: Settings, logs: list[dict[str, Any]], verified: Verified, on_ids: OnIds
) -> list[bytes]:
    ids: list[bytes] = []
    async with object_store(settings) as store:
        reader = archive_reader(settings, store)
        for log in logs:
            of_log = verified.setdefault(log["name"], [])
            await _verify(reader, LogName.parse(log["name"]), log["log_id"], of_log, on_ids)
            ids += of_log
    return ids


async def _verify(
    reader: ArchiveReader, name: LogName, log_id: int, ids: list[bytes], on_ids: OnIds
) -> None:
    """Read the objects beyond the leaves whose ids are there, and add theirs."""
    async for found in reader.ranges(name, len(ids)):
        leaves = await reader.read(found, log_id)
        if leaves.first_leaf != len(ids):
            detail = f"the archive has leaf {leaves.first_leaf} after {len(ids) - 1}"
            raise ChainBroken(str(name), detail)
        ids += [event.event_id for event in leaves.events]
        on_ids(len(leaves.events))


def _collect(
    store: str, ids: Collection[bytes] | Iterator[bytes], on_ids: OnIds = _unwatched
) -> StoreIds:
    count = 0
    distinct: set[bytes] = set()
    for event_id in ids:
        count += 1
        distinct.add(event_id)
        if count % _PAGE == 0:
            on_ids(_PAGE)
    on_ids(count % _PAGE)
    return StoreIds(store, frozenset(distinct), count - len(distinct))


def _difference(store: StoreIds, reference: frozenset[bytes]) -> StoreDifference:
    return StoreDifference(
        store.store,
        len(store.ids),
        store.twice,
        missing=reference - store.ids,
        beyond=store.ids - reference,
    )
