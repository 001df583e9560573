"""One log through a verification, its stores in memory: what was removed by authority, and what was not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import orjson
import pytest

from pipeline.compliance.archive_objects import ArchivedLeaves, check_object
from pipeline.compliance.archive_walk import ArchiveWalk
from pipeline.compliance.authority import Authorities
from pipeline.compliance.authority_reader import AuthorityReader
from pipeline.compliance.findings import Findings, Kind, Store
from pipeline.compliance.trail_reader import (
    BlobRow,
    EventRow,
    LogState,
    PackedLeaves,
    TrailReader,
)
from pipeline.compliance.verify_ends import Parts
from pipeline.compliance.verify_index import DocumentCheck
from pipeline.compliance.verify_log import LogCheck
from pipeline.compliance.verify_state import LogProgress
from pipeline.domain.erasure import refs_digest
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import Frontier
from pipeline.domain.records import SealedEvent
from pipeline.keys.seal import seal_values
from pipeline.keys.subjects import SubjectKey
from sinks.archive_buffer import ArchiveBuffer
from sinks.archive_facts import PLACE, SERVER
from sinks.documents import Documents, uuid_text
from sinks.index_reader import Document, IndexReader
from tests.index_support import KEY, LATE_AFTER_S, as_caught_up, sign_ins
from tests.unit.test_authority import (
    ERASURE,
    LOG,
    ROOT,
    Reader,
    a_redaction,
    an_expiry,
    leaf_of_erasure,
)

pytestmark = pytest.mark.anyio

NAME = LogName.parse(LOG)
SIZE = 8
PREFIX = "test"


@dataclass
class Stores:
    """The leaves 0 to 7 of one log and month; what the stores have of them is for tests to change."""

    events: list[SealedEvent]
    rows: dict[int, SealedEvent]
    vault: dict[int, SealedEvent]
    documents: dict[int, Mapping[str, Any]]
    keys: dict[UUID, SubjectKey]
    authority: Reader = field(default_factory=Reader)
    has_vault_object: bool = True

    async def verify(self) -> tuple[Findings, LogProgress]:
        archived = await self._archived(self.events)
        vaulted = await self._archived([self.vault.get(n, e) for n, e in enumerate(self.events)])
        found = check_object(
            archived[0], archived[1], vaulted[2] if self.has_vault_object else None, vaulted[3]
        )
        tree = Frontier().append([event.leaf_hash for event in self.events])
        now = datetime(2026, 11, 27, tzinfo=UTC)
        state = LogState(1, NAME, SIZE, SIZE, tree.to_bytes(), tree.root(), now, "t", SIZE, SIZE)
        authorities = Authorities(cast("AuthorityReader", self.authority))
        await authorities.load()
        parts = Parts(
            cast("TrailReader", _Rows(self, found)),
            authorities,
            ledger=True,
            archive=cast("ArchiveWalk", _Archive(found)),
            index=cast("IndexReader", _Index(self)),
            documents=DocumentCheck(
                prefix=PREFIX, late_after_s=LATE_AFTER_S, sources=True, keys_of=self._keys_of
            ),
            checkpoints=None,
            on_span=lambda _leaves: None,
        )
        progress, findings = LogProgress(state), Findings()
        await LogCheck(parts, progress, findings, begins=0, ends=SIZE).run()
        return findings, progress

    async def _keys_of(self, refs: Iterable[UUID]) -> Mapping[UUID, SubjectKey]:
        return {ref: self.keys[ref] for ref in refs if ref in self.keys}

    @staticmethod
    async def _archived(events: Sequence[SealedEvent]) -> tuple[Any, bytes, Any, bytes]:
        with ThreadPoolExecutor(1) as executor:
            buffer = ArchiveBuffer(
                NAME, 0, executor=executor, opened_at_s=0, max_events=SIZE, max_bytes=1 << 30
            )
            buffer.add_all(list(events))
            pair = await buffer.pair()
        return pair.leaves, pair.leaves_body, pair.blobs, pair.blobs_body

    def document(self, leaf: int, *, erased: bool = False) -> dict[str, Any]:
        """What catch-up builds from the row as it is."""
        event = as_caught_up(self.rows[leaf], erased=erased or not self.rows[leaf].blobs)
        built = orjson.loads(Documents(late_after_s=LATE_AFTER_S).document(event, LOG, leaf))
        return {**built, "audit.late": False}


class _Rows:
    """The ledger."""

    def __init__(self, stores: Stores, whole: ArchivedLeaves) -> None:
        self._stores = stores
        self._whole = whole

    async def leaves(self, _log_id: int, first: int, end: int) -> PackedLeaves:
        whole = self._whole
        places = whole.part("places", PLACE.size, first, end)
        return PackedLeaves(end - first, places, whole.part("hashes", 32, first, end))

    async def rows(self, _log_id: int, first: int, end: int) -> list[EventRow]:
        return [
            EventRow(
                leaf,
                self._whole.part("places", PLACE.size, leaf, leaf + 1),
                self._whole.part("server", SERVER.size, leaf, leaf + 1),
                event.canonical,
                event.family,
                *[str(event.clear[name]) for name in ("tenant", "action", "outcome", "severity")],
                str(event.clear["actor.type"]),
                imported=False,
                late=False,
            )
            for leaf, event in sorted(self._stores.rows.items())
            if first <= leaf < end
        ]

    async def blobs(self, _log_id: int, first: int, end: int) -> list[BlobRow]:
        return [
            BlobRow(leaf, *blob, self._whole.part("places", PLACE.size, leaf, leaf + 1)[-8:])
            for leaf, event in sorted(self._stores.rows.items())
            for blob in event.blobs
            if first <= leaf < end
        ]

    async def size(self, _log_id: int) -> int:
        return SIZE

    async def beyond(self, *_: object) -> list[tuple[int, bytes]]:
        return []

    async def place_of(self, _event_id: bytes) -> None:
        return None


class _Archive:
    def __init__(self, whole: ArchivedLeaves) -> None:
        self._whole = whole

    async def objects(self, *_: object) -> AsyncIterator[ArchivedLeaves]:
        yield self._whole

    async def end(self, *_: object) -> int:
        return SIZE

    async def spare_blobs(self, *_: object, **__: object) -> AsyncIterator[Any]:
        for one in ():
            yield one


class _Index:
    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def of_leaves(self, *_: object, **__: object) -> list[Document]:
        return [
            Document(f"{PREFIX}-2025.10", uuid_text(self._stores.events[leaf].event_id), source)
            for leaf, source in self._stores.documents.items()
        ]


@pytest.fixture
def stores() -> Stores:
    events = sign_ins(SIZE)
    made = Stores(
        events, dict(enumerate(events)), dict(enumerate(events)), {}, {UUID(bytes=KEY.ref): KEY}
    )
    made.documents = {leaf: made.document(leaf) for leaf in range(SIZE)}
    return made


def changed(event: SealedEvent, blobs: Sequence[Any]) -> SealedEvent:
    facts = {name: getattr(event, name) for name in SealedEvent.__slots__}
    return SealedEvent(**{**facts, "blobs": blobs})


def listed(findings: Findings) -> list[tuple[Kind, Store, int | None]]:
    return [(one.kind, one.store, one.leaf) for one in findings.listed]


def counted(findings: Findings) -> dict[str, int]:
    return {f"{row['authority']} {row['part']}": row["count"] for row in findings.authorities()}


def drop(stores: Stores, *leaves: int) -> None:
    """As expiry does it with a month."""
    for leaf in leaves:
        del stores.rows[leaf], stores.documents[leaf]
        stores.vault[leaf] = changed(stores.events[leaf], ())


def without_blob(stores: Stores, leaf: int) -> None:
    """As expiry does it with a class."""
    stores.rows[leaf] = stores.vault[leaf] = changed(stores.events[leaf], ())
    stores.documents[leaf] = stores.document(leaf)


def cut(stores: Stores, leaf: int) -> None:
    """As a redaction does it."""
    event = stores.events[leaf]
    values = {path: value for path, value in event.opened.items() if path != "actor.id"}
    blob = seal_values(KEY, event.event_id, values)
    stores.rows[leaf] = stores.vault[leaf] = changed(event, [blob])
    stores.documents[leaf] = stores.document(leaf)


async def test_what_is_whole_has_no_findings(stores: Stores) -> None:
    findings, progress = await stores.verify()

    assert (listed(findings), counted(findings), progress.differing) == ([], {}, [])


async def test_a_month_goes_up_to_its_bounds(stores: Stores) -> None:
    order = an_expiry(2)
    assert order.expiry is not None
    order.expiry.bounds[LOG] = 6  # type: ignore[index]
    stores.authority.add(order)
    drop(stores, *range(6))
    expired, progress = await stores.verify()
    drop(stores, 7)
    more, _ = await stores.verify()

    assert listed(expired) == []
    assert counted(expired) == {"expired event": 6, "expired blob": 6}
    assert progress.differing == []
    assert sorted(listed(more)) == [
        (Kind.MISSING, Store.LEDGER, 7),
        (Kind.MISSING, Store.VAULT, 7),
    ]
    assert counted(more) == counted(expired)


async def test_a_month_without_an_order(stores: Stores) -> None:
    drop(stores, *range(SIZE))

    findings, progress = await stores.verify()

    assert findings.count(Kind.MISSING, Store.LEDGER) == SIZE
    assert findings.count(Kind.MISSING, Store.VAULT) == SIZE
    assert {row["store"] for row in progress.differing} == {"ledger", "index"}


async def test_a_class_loses_its_blobs_and_nothing_else(stores: Stores) -> None:
    stores.authority.add(an_expiry(3, tenant="acme", class_="short"))
    stores.authority.of_class = {2}
    without_blob(stores, 2)
    expired, _ = await stores.verify()
    without_blob(stores, 3)
    more, _ = await stores.verify()

    assert listed(expired) == []
    assert counted(expired) == {"expired blob": 2}
    assert sorted(listed(more)) == [
        (Kind.MISSING, Store.LEDGER, 3),
        (Kind.MISSING, Store.VAULT, 3),
    ]


async def test_a_value_goes_where_a_redaction_names_it(stores: Stores) -> None:
    stores.authority.add(a_redaction())
    cut(stores, 3)
    redacted, _ = await stores.verify()
    cut(stores, 4)
    more, _ = await stores.verify()

    assert listed(redacted) == []
    assert counted(redacted) == {"redacted value": 1}
    assert listed(more) == [(Kind.MISSING, Store.LEDGER, 4)]
    assert "the value actor.id" in more.listed[0].what


async def test_a_key_goes_at_the_leaves_that_an_erasure_commits_to(stores: Stores) -> None:
    erasure = ERASURE._replace(subject_refs=[UUID(bytes=KEY.ref)])
    stores.authority.rows = [erasure]
    stores.authority.events[UUID(erasure.event_id or "")] = leaf_of_erasure(
        **{"resources.2.id": refs_digest(erasure.subject_refs).hex()}
    )
    stores.authority.roots[erasure.request_id] = ROOT, 2
    stores.authority.kept = {(leaf, erasure.request_id) for leaf in range(SIZE)}
    stores.keys.clear()
    stores.documents = {leaf: stores.document(leaf, erased=True) for leaf in range(SIZE)}
    erased, _ = await stores.verify()
    stores.authority.kept.discard((5, erasure.request_id))
    more, _ = await stores.verify()

    assert listed(erased) == []
    assert counted(erased) == {"erased key": SIZE}
    assert listed(more) == [(Kind.MISSING, Store.LEDGER, 5)]
    assert counted(more) == {"erased key": SIZE - 1}


async def test_a_vault_object_goes_with_all_of_its_month(stores: Stores) -> None:
    stores.has_vault_object = False
    lost, _ = await stores.verify()
    stores.authority.add(an_expiry(2))
    drop(stores, *range(SIZE))
    expired, _ = await stores.verify()

    assert listed(lost) == [(Kind.MISSING, Store.VAULT, 0)]
    assert listed(expired) == []
    assert counted(expired) == {"expired event": SIZE, "expired vault object": 1}


async def test_a_document_of_a_row_that_is_there_may_go_with_its_month(stores: Stores) -> None:
    del stores.documents[1]
    lost, _ = await stores.verify()
    stores.authority.add(an_expiry(2))
    expired, _ = await stores.verify()

    assert listed(lost) == [(Kind.MISSING, Store.INDEX, 1)]
    assert (listed(expired), counted(expired)) == ([], {"expired document": 1})
