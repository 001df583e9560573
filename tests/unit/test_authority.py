"""What gives authority, over orders and leaves in memory: only what a leaf names and commits to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compliance.absence import Absence, Part
from pipeline.compliance.authority import Authorities
from pipeline.compliance.authority_reader import AuthorityReader, ErasureRow
from pipeline.compliance.findings import Kind, Store
from pipeline.compliance.grants import Expired, Grants
from pipeline.domain.erasure import refs_digest, subjects_digest
from pipeline.domain.orders import EXPIRY, REDACTION, Expiry, Order
from sinks.archive_listing import KeyVersions

LOG = "audit.raw.authentication/0/1"
ROOT = b"r" * 32
AT_US = 1_760_000_000_000_000  # 2025-10-09
NEXT_MONTH_US = AT_US + 30 * 86_400_000_000
REF, OTHER = b"a" * 16, b"b" * 16


def a_redaction(**changes: Any) -> Order:
    leaves = {LOG: [(3, ("actor.id",)), (5, ("actor.id", "reason"))]}
    return replace(
        Order(UUID(int=1), REDACTION, "acme", "a test", AT_US, 2, ROOT, leaves), **changes
    )


def an_expiry(number: int, **changes: Any) -> Order:
    tenant = changes.pop("tenant", None)
    expiry = Expiry("2025-10", 400, AT_US, {LOG: 10}, **changes)
    return Order(UUID(int=number), EXPIRY, tenant, "a test", AT_US, 9, ROOT, expiry=expiry)


def leaf_of_order(order: Order, **changes: Any) -> dict[str, Any]:
    clear = {
        "operation": order.kind,
        "authority.request_id": str(order.request_id),
        "authority.leaves": order.count,
        "authority.root": order.root.hex(),
        "authority.order_hash": order.hash().hex(),
    }
    return {"family": "system", "clear": clear | changes}


ERASURE = ErasureRow(UUID(int=40), [b"h" * 32], [UUID(bytes=REF)], str(UUID(int=41)))


def leaf_of_erasure(**changes: Any) -> dict[str, Any]:
    clear = {
        "operation": "erasure",
        "action": "subject.erased",
        "ticket": str(ERASURE.request_id),
        "resources.0.type": "erasure-subjects",
        "resources.0.id": subjects_digest(ERASURE.subject_hashes).hex(),
        "resources.1.type": "erasure-leaves",
        "resources.1.id": f"{ROOT.hex()}/2",
        "resources.2.type": "erasure-refs",
        "resources.2.id": refs_digest(ERASURE.subject_refs).hex(),
    }
    return {"family": "system", "clear": clear | changes}


class Reader:
    """Orders, erasures and leaves as they are told; ``roots``: what the affected leaves give."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.events: dict[UUID, dict[str, Any]] = {}
        self.rows: list[ErasureRow] = []
        self.roots: dict[UUID, tuple[bytes, int]] = {}
        self.planned: set[UUID] = set()
        self.of_class: set[int] = set()
        self.kept: set[tuple[int, UUID]] = set()
        self.looks = 0

    def add(self, order: Order, **said: Any) -> Order:
        self.stored[order.key] = order.encode()
        self.events[order.event_id] = leaf_of_order(order, **said)
        self.roots[order.request_id] = order.root, order.count
        return order

    def add_erasure(self, **said: Any) -> None:
        self.rows.append(ERASURE)
        self.events[UUID(ERASURE.event_id or "")] = leaf_of_erasure(**said)
        self.roots[ERASURE.request_id] = ROOT, 2
        self.kept |= {(3, ERASURE.request_id), (4, ERASURE.request_id)}

    async def state(self) -> tuple[int, ...]:
        return len(self.stored), len(self.rows)

    async def orders(self) -> Any:
        self.looks += 1
        for key, body in sorted(self.stored.items()):
            yield KeyVersions(key, "v", 0, 0), body

    async def is_planned(self, request_id: UUID) -> bool:
        return request_id in self.planned

    async def leaf_of(self, event_id: UUID) -> dict[str, Any] | None:
        return self.events.get(event_id)

    async def erasures(self) -> Any:
        for row in self.rows:
            yield row

    async def erased_root(self, request_id: UUID) -> tuple[bytes, int] | None:
        return self.roots.get(request_id)

    async def redacted_root(self, order: Order) -> tuple[bytes, int] | None:
        return self.roots.get(order.request_id)

    async def month_roots(self, months: Sequence[Expired]) -> list[tuple[bytes, int]]:
        return [self.roots[one.request_id] for one in months]

    async def class_root(self, _scope: Any, _bounds: Any) -> tuple[bytes, int]:
        return self.roots[UUID(int=3)]

    async def in_scope(self, _scope: Any, _log_id: int, leaves: Collection[int]) -> set[int]:
        return self.of_class.intersection(leaves)

    async def committed(
        self, _log_id: int, leaves: Collection[int], requests: Collection[UUID]
    ) -> set[tuple[int, UUID]]:
        return {(leaf, one) for leaf, one in self.kept if leaf in leaves and one in requests}


async def authorities(reader: Reader) -> Authorities:
    made = Authorities(cast("AuthorityReader", reader))
    await made.load()
    return made


def gone(part: Part, leaf: int, **facts: Any) -> Absence:
    store = facts.pop("store", Store.LEDGER)
    facts = {"occurred_at_us": AT_US, "subject": REF} | facts
    return Absence(part, store, LOG, leaf, "it", **facts)


async def judged(reader: Reader, *absences: Absence) -> tuple[set[tuple[str, str, int]], list[int]]:
    """(how, part, count), and the leaves of findings."""
    found = await (await authorities(reader)).judge(1, absences)
    granted = {(how, part, count) for (how, _request, part), count in found.granted.items()}
    return granted, [one.leaf or 0 for one in found.findings]


@pytest.mark.anyio
async def test_a_redaction_covers_its_leaves_and_paths() -> None:
    reader = Reader()
    reader.add(a_redaction())

    granted, missing = await judged(
        reader,
        gone(Part.VALUE, 3, path="actor.id"),
        gone(Part.VALUE, 3, path="reason"),
        gone(Part.VALUE, 4, path="actor.id"),
        gone(Part.VALUE, 5, path="reason"),
        gone(Part.BLOB, 5),
        gone(Part.KEY, 3),
    )

    assert granted == {("redacted", "value", 2)}
    assert missing == [3, 4, 5, 3]


@given(
    st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=6), max_size=8),
    st.integers(0, 31),
)
def test_of_many_redactions_the_one_is_found_that_names_the_leaf(
    named: list[set[int]], leaf: int
) -> None:
    grants = Grants()
    for number, leaves in enumerate(named):
        of_log = {LOG: [(one, ("reason",)) for one in sorted(leaves)]}
        grants.add_redaction(a_redaction(request_id=UUID(int=number), leaves=of_log))
    grants.settle()

    found = grants.redaction_of(LOG, leaf, "reason")

    allowed = {UUID(int=number) for number, leaves in enumerate(named) if leaf in leaves}
    assert found in (allowed or {None})


@pytest.mark.anyio
async def test_an_expired_month_covers_what_is_within_month_and_bounds() -> None:
    reader = Reader()
    reader.add(an_expiry(2))
    inside = [gone(part, 9) for part in (Part.EVENT, Part.BLOB, Part.DOCUMENT)]

    granted, missing = await judged(
        reader,
        *inside,
        gone(Part.EVENT, 10),
        gone(Part.EVENT, 8, occurred_at_us=NEXT_MONTH_US),
        gone(Part.EVENT, 7, store=Store.ARCHIVE),
        gone(Part.LEAF, 6, store=Store.LEAVES),
        gone(Part.KEY, 5),
        gone(Part.VALUE, 4, path="actor.id"),
    )

    assert granted == {("expired", part, 1) for part in ("event", "blob", "document")}
    assert missing == [10, 8, 7, 6, 5, 4]


@pytest.mark.anyio
async def test_a_class_covers_blobs_of_its_rows_alone() -> None:
    reader = Reader()
    reader.add(an_expiry(3, tenant="acme", class_="short"))
    reader.of_class = {4, 11}

    granted, missing = await judged(
        reader, gone(Part.BLOB, 4), gone(Part.BLOB, 5), gone(Part.BLOB, 11), gone(Part.EVENT, 4)
    )

    assert granted == {("expired", "blob", 1)}
    assert missing == [5, 11, 4]


@pytest.mark.anyio
async def test_the_month_stands_for_a_class_whose_rows_went_with_it() -> None:
    reader = Reader()
    reader.add(an_expiry(3, tenant="acme", class_="short"))
    reader.roots[UUID(int=3)] = ROOT, 0  # no row is left of it
    alone = await authorities(reader)
    reader.add(an_expiry(2))
    both = await authorities(reader)

    assert [one.kind for one in alone.findings] == [Kind.INCONSISTENT]
    assert both.findings == []


@pytest.mark.anyio
async def test_a_vault_object_needs_authority_for_all_that_it_held() -> None:
    reader = Reader()
    reader.add(an_expiry(2))
    within, beyond = gone(Part.BLOB, 8), gone(Part.BLOB, 12)
    whole = gone(Part.VAULT_OBJECT, 1, held=(within,), store=Store.VAULT)
    part = gone(Part.VAULT_OBJECT, 2, held=(within, beyond), store=Store.VAULT)
    empty = gone(Part.VAULT_OBJECT, 3, store=Store.VAULT)

    assert await judged(reader, whole, part, empty) == ({("expired", "vault object", 1)}, [2, 3])


@pytest.mark.anyio
async def test_an_erasure_covers_its_subject_at_the_leaves_that_it_commits_to() -> None:
    reader = Reader()
    reader.add_erasure()

    granted, missing = await judged(
        reader,
        gone(Part.KEY, 3),
        gone(Part.KEY, 4),
        gone(Part.KEY, 5),
        gone(Part.KEY, 6),  # the same key: said once
        gone(Part.KEY, 3, subject=OTHER),
        gone(Part.BLOB, 3),
    )

    assert granted == {("erased", "key", 2)}
    assert missing == [5, 3, 3]


@pytest.mark.parametrize(
    "said",
    [
        {"authority.request_id": str(UUID(int=9))},
        {"authority.leaves": 3},
        {"authority.root": bytes(32).hex()},
        {"authority.order_hash": bytes(32).hex()},
        {"operation": EXPIRY},
    ],
)
@pytest.mark.anyio
async def test_an_order_whose_leaf_says_otherwise(said: dict[str, Any]) -> None:
    reader = Reader()
    order = reader.add(a_redaction(), **said)

    found = await authorities(reader)

    assert [(one.kind, one.place) for one in found.findings] == [(Kind.INCONSISTENT, order.key)]
    assert await judged(reader, gone(Part.VALUE, 3, path="actor.id")) == (set(), [3])


@pytest.mark.parametrize(
    "said",
    [
        {"ticket": str(UUID(int=9))},
        {"action": "subject.erase"},
        {"operation": "export"},
        {"resources.0.id": bytes(32).hex()},
        {"resources.1.id": f"{ROOT.hex()}/3"},
        {"resources.2.type": "erasure-leaves", "resources.2.id": f"{bytes(32).hex()}/2"},
    ],
)
@pytest.mark.anyio
async def test_an_erasure_whose_leaf_says_otherwise(said: dict[str, Any]) -> None:
    reader = Reader()
    reader.add_erasure(**said)

    found = await authorities(reader)

    assert [one.kind for one in found.findings] == [Kind.INCONSISTENT]
    assert await judged(reader, gone(Part.KEY, 3)) == (set(), [3])


@pytest.mark.anyio
async def test_an_order_waits_for_its_leaf_or_has_lost_it() -> None:
    reader = Reader()
    order = reader.add(a_redaction())
    del reader.events[order.event_id]
    lost = await authorities(reader)
    reader.planned = {order.request_id}
    waiting = await authorities(reader)

    assert [one.kind for one in lost.findings] == [Kind.MISSING]
    assert waiting.findings == []
    assert await judged(reader, gone(Part.VALUE, 3, path="actor.id")) == (set(), [3])


@pytest.mark.anyio
async def test_what_is_no_order_is_named() -> None:
    reader = Reader()
    order = a_redaction()
    reader.stored[order.key] = b"{}"
    reader.stored[a_redaction(request_id=UUID(int=6)).key] = order.encode()

    found = await authorities(reader)

    assert [one.kind for one in found.findings] == [Kind.CHANGED] * 2


@pytest.mark.anyio
async def test_what_is_removed_meanwhile_by_authority_is_no_finding() -> None:
    reader = Reader()
    made = await authorities(reader)
    first = await made.judge(1, [gone(Part.EVENT, 4)])
    reader.add(an_expiry(2))

    second = await made.judge(1, [gone(Part.EVENT, 5)])

    assert (len(first.findings), len(second.findings)) == (1, 0)
    assert second.expired == {5}
    assert reader.looks == 2
