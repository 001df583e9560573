"""Comparing what leaves, ledger and archive say of the same leaves; thousands in one step.

Where all agree, nothing is unpacked. Where they do not, the one that differs from the others is named;
an archive object that is whole, being locked, is believed before tables that a superuser can write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import orjson

from pipeline.compliance.absence import Absence, Part, Problem
from pipeline.compliance.archive_objects import compare_subjects
from pipeline.compliance.findings import Finding, Kind, Store
from pipeline.compliance.trail_reader import BlobRow, EventRow
from pipeline.domain.escrow import NOBODY
from pipeline.domain.merkle import HASH_BYTES
from sinks.archive_facts import PLACE, SERVER, indexes_follow
from sinks.documents import uuid_text
from sinks.rows import POSTGRES_EPOCH_US as _EPOCH_US

# The columns that are read from the event itself, and the path that each has there.
_COLUMNS = (
    ("tenant", "tenant"),
    ("action", "action"),
    ("outcome", "outcome"),
    ("severity", "severity"),
    ("actor_type", "actor.type"),
)

PlaceOf = Callable[[bytes], Awaitable[tuple[int, int] | None]]


class Packed(NamedTuple):
    """Places and hashes of leaves, as one store has them."""

    places: bytes
    hashes: bytes


class Said(NamedTuple):
    """What a store says of one leaf."""

    event_id: bytes
    occurred_at: int
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class Where:
    """The leaves ``first`` to before ``end`` of a log. ``sound``: the archive's objects are whole."""

    log: str
    log_id: int
    first: int
    end: int
    sound: bool = True


async def differences(
    where: Where, stores: Mapping[Store, Packed], place_of: PlaceOf
) -> list[Problem]:
    """Which store says something else of which leaf. Each store is to have every leaf of the range."""
    packed = list(stores.values())
    count = where.end - where.first
    alike = len(packed[0].hashes) == count * HASH_BYTES and all(one == packed[0] for one in packed)
    if alike and indexes_follow(packed[0].places, where.first):
        return []
    said = {store: _unpacked(one) for store, one in stores.items()}
    leaf_of = {value.event_id: leaf for values in said.values() for leaf, value in values.items()}
    found: list[Problem] = []
    for leaf in range(where.first, where.end):
        have = {store: values[leaf] for store, values in said.items() if leaf in values}
        if len(have) == len(said) and len(set(have.values())) == 1:
            continue
        found += _absent(where, leaf, have, said)
        for store, why in _odd(have, sound=where.sound).items():
            found.append(await _changed(where, leaf, store, why, have, leaf_of, place_of))
    return found


def _unpacked(packed: Packed) -> dict[int, Said]:
    hashes = packed.hashes
    return {
        leaf: Said(event_id, at, hashes[number * HASH_BYTES : (number + 1) * HASH_BYTES])
        for number, (leaf, event_id, at) in enumerate(PLACE.iter_unpack(packed.places))
    }


def _absent(
    where: Where, leaf: int, have: Mapping[Store, Said], stores: Mapping[Store, object]
) -> list[Absence]:
    said = next(iter(have.values()), None)
    event_id = None if said is None else _text(said.event_id)
    at_us = None if said is None else said.occurred_at + _EPOCH_US
    found = []
    for store in stores:
        if store not in have:
            is_leaf = store is Store.LEAVES
            part, what = (Part.LEAF, "the leaf itself") if is_leaf else (Part.EVENT, "the event")
            found.append(
                Absence(part, store, where.log, leaf, what, event_id, occurred_at_us=at_us)
            )
    return found


def _odd(have: Mapping[Store, Said], *, sound: bool) -> dict[Store, str]:
    """The stores that say something else than the others, and against whom."""
    if len(set(have.values())) < 2:
        return {}
    archive = have.get(Store.ARCHIVE)
    if archive is not None and sound:
        odd = [store for store, value in have.items() if value != archive]
        return dict.fromkeys(odd, "the archive's object, which is whole")
    if archive is not None and len(have) == 2:
        return {Store.ARCHIVE: "the leaf"}
    if have.get(Store.LEDGER) == have.get(Store.LEAVES):
        return {Store.ARCHIVE: "ledger and leaf"}
    return {Store.LEDGER: "its leaf"}


async def _changed(
    where: Where,
    leaf: int,
    store: Store,
    against: str,
    have: Mapping[Store, Said],
    leaf_of: Mapping[bytes, int],
    place_of: PlaceOf,
) -> Finding:
    value = have[store]
    event_id = _text(value.event_id)
    others = [one for other, one in have.items() if other is not store and one != value]
    if all(one.event_id != value.event_id for one in others):
        # Another event stands there: whose leaf is it by right?
        place = await place_of(value.event_id) if store is not Store.LEAVES else None
        right = (
            place[1] if place and place[0] == where.log_id else leaf_of.get(value.event_id, leaf)
        )
        if right != leaf:
            what = f"the event of leaf {right} stands there; it differs from {against}"
            return Finding(Kind.REORDERED, store, where.log, what, leaf, event_id)
        what = f"another event stands there; it differs from {against}"
        return Finding(Kind.CHANGED, store, where.log, what, leaf, _text(others[0].event_id))
    if any(one.leaf_hash != value.leaf_hash for one in others):
        what = f"is not what was hashed: differs from {against}"
    else:
        what = f"its time is another one: differs from {against}"
    return Finding(Kind.CHANGED, store, where.log, what, leaf, event_id)


class CheckedRows(NamedTuple):
    """Rows of the ledger, one of each leaf, with their hashes computed here."""

    packed: Packed
    server: bytes
    rows: list[EventRow]
    sealed: set[tuple[int, bytes]]
    problems: list[Finding]


def check_rows(where: Where, rows: Sequence[EventRow], leaf_places: bytes) -> CheckedRows:
    """Hash every event, compare its columns with what it says, and sort out rows that are too many."""
    by_right = {leaf: leaf_places[number * PLACE.size : (number + 1) * PLACE.size]
                for number, (leaf, _id, _at) in enumerate(PLACE.iter_unpack(leaf_places))}  # fmt: skip
    chosen: dict[int, EventRow] = {}
    problems: list[Finding] = []
    for row in rows:
        held = chosen.get(row.leaf)
        if held is None:
            chosen[row.leaf] = row
            continue
        spare = row if held.place == by_right.get(row.leaf) else held
        chosen[row.leaf] = held if spare is row else row
        event_id = _text(PLACE.unpack(spare.place)[1])
        what = "a second event of the same leaf"
        problems.append(Finding(Kind.ADDED, Store.LEDGER, where.log, what, row.leaf, event_id))
    kept = list(chosen.values())
    sealed: set[tuple[int, bytes]] = set()
    hashes = []
    for row in kept:
        hashes.append(sha256(b"\x00" + row.canonical).digest())
        wrong, refs = _columns(row)
        sealed.update([(row.leaf, ref) for ref in refs])
        if wrong:
            event_id = _text(PLACE.unpack(row.place)[1])
            problems.append(
                Finding(Kind.CHANGED, Store.LEDGER, where.log, wrong, row.leaf, event_id)
            )
    packed = Packed(b"".join([row.place for row in kept]), b"".join(hashes))
    return CheckedRows(packed, b"".join([row.server for row in kept]), kept, sealed, problems)


def _columns(row: EventRow) -> tuple[str, list[bytes]]:
    """Columns that say something else than the event, in words; the subjects that it seals values of."""
    try:
        event = orjson.loads(row.canonical)
        clear, family = event["clear"], event["family"]
        refs = [bytes.fromhex(name.replace("-", "")) for name in event["sealed"]]
        wrong = [name for name, path in _COLUMNS if getattr(row, name) != clear.get(path)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "is no sealed event", []
    _leaf, event_id, occurred_at = PLACE.unpack(row.place)
    if row.family != family:
        wrong.append("family")
    if clear.get("event_id") != _text(event_id):
        wrong.append("event_id")
    if clear.get("occurred_at") != occurred_at + _EPOCH_US:
        wrong.append("occurred_at")
    if row.imported is not bool(clear.get("imported", False)):
        wrong.append("imported")
    has_actor, actor_ref = SERVER.unpack(row.server)[4:]
    if has_actor and actor_ref not in refs:
        wrong.append("actor_ref")
    said = f"columns that are not what the event says: {', '.join(wrong)}" if wrong else ""
    return said, [ref for ref in refs if ref != NOBODY]


def check_blobs(
    where: Where,
    sealed: set[tuple[int, bytes]],
    rows: Sequence[BlobRow],
    times: Mapping[int, bytes],
    vaulted: Mapping[tuple[int, bytes], bytes] | None,
) -> list[Problem]:
    """Whether the ledger has the blobs that its events call for, and the vault the same ones.

    ``times``: leaf → occurred_at as PostgreSQL sends it. ``vaulted``: (leaf, subject) → hash; None where
    the vault was not read.
    """
    held = {
        (row.leaf, row.subject_ref): sha256(row.nonce + row.ciphertext).digest()
        for row in rows
        if row.leaf in times  # of an event that is missing nothing more is said
    }

    def occurred_at_us(leaf: int) -> int:
        return int.from_bytes(times[leaf], "big", signed=True) + _EPOCH_US

    found = compare_subjects(Store.LEDGER, where.log, sealed, held, occurred_at_us)
    for row in rows:
        if row.occurred_at != times.get(row.leaf, row.occurred_at):
            what = (
                f"the blob of subject {row.subject_ref.hex()} stands at another time than its event"
            )
            found.append(Finding(Kind.CHANGED, Store.LEDGER, where.log, what, row.leaf))
    for place, digest in (vaulted or {}).items():
        if held.get(place, digest) != digest:  # one that is missing is said already
            what = f"the blob of subject {place[1].hex()} is another one than the ledger's"
            found.append(Finding(Kind.CHANGED, Store.VAULT, where.log, what, place[0]))
    return found


def compare_server(
    where: Where, rows: Sequence[EventRow], server: bytes, archived: bytes
) -> list[Finding]:
    """Whether the ledger has beside its events what the archive has; both of the same leaves."""
    if server == archived:
        return []
    size = SERVER.size
    store = Store.LEDGER if where.sound else Store.ARCHIVE
    found = []
    for row in rows:
        at = (row.leaf - where.first) * size
        if row.server != archived[at : at + size] and len(archived) > at:
            mine, theirs = SERVER.unpack(row.server), SERVER.unpack(archived[at : at + size])
            names = (
                "stored_at",
                "broker_timestamp",
                "schema_id",
                "source_offset",
                "actor_ref",
                "actor_ref",
            )
            wrong = dict.fromkeys(
                name for name, one, two in zip(names, mine, theirs, strict=True) if one != two
            )
            event_id = _text(PLACE.unpack(row.place)[1])
            what = f"columns that are not what the archive has: {', '.join(wrong)}"
            found.append(Finding(Kind.CHANGED, store, where.log, what, row.leaf, event_id))
    return found


def _text(event_id: bytes) -> str:
    return uuid_text(event_id)
