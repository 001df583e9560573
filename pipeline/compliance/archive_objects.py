"""One pair of archive objects, verified by itself: bodies, every leaf's hash, root, blobs.

Nothing that the objects say of themselves is believed: what is given back was computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from pipeline.compliance.absence import Absence, Part, Problem
from pipeline.compliance.findings import Finding, Kind, Store
from pipeline.domain.merkle import HASH_BYTES, Frontier, packed_parents
from pipeline.native import native
from sinks import archive_facts, ocf
from sinks.archive_facts import BLOB, PLACE, SEALED
from sinks.archive_format import ObjectInfo, archive_key, blobs_key
from sinks.rows import POSTGRES_EPOCH_US

PARENTS = packed_parents if native is None else native.packed_parents


@dataclass(slots=True)
class ArchivedLeaves:
    """What an object holds, packed, leaf after leaf; see ``sinks.archive_facts``. ``sound``: it is whole,
    as its metadata says; ``absences``: what the vault's object lacks, in the order of leaves.
    """

    first_leaf: int
    places: bytearray = field(default_factory=bytearray)
    server: bytearray = field(default_factory=bytearray)
    hashes: bytearray = field(default_factory=bytearray)
    sealed: bytearray = field(default_factory=bytearray)
    blobs: bytearray = field(default_factory=bytearray)
    problems: list[Finding] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)
    sound: bool = True

    @property
    def next_leaf(self) -> int:
        """The leaf after the last one held."""
        return self.first_leaf + len(self.hashes) // HASH_BYTES

    def join(self, after: ArchivedLeaves) -> None:
        """Take the leaves that follow."""
        for name in ("places", "server", "hashes", "sealed", "blobs"):
            getattr(self, name).extend(getattr(after, name))
        self.problems += after.problems
        self.absences += after.absences
        self.sound = self.sound and after.sound

    def part(self, name: str, size: int, first: int, end: int) -> bytes:
        """The records of ``name`` (each ``size`` bytes) of the leaves from ``first`` to before ``end``."""
        packed: bytearray = getattr(self, name)
        return bytes(packed[(first - self.first_leaf) * size : (end - self.first_leaf) * size])

    def absent(self, first: int, end: int, *, begins: int) -> list[Absence]:
        """What the vault lacks of these leaves. A missing object that starts before leaf ``begins``, where
        the verification does, is of that leaf.
        """
        return [
            one
            for one in self.absences
            if first <= (max(one.leaf, begins) if one.part is Part.VAULT_OBJECT else one.leaf) < end
        ]


def check_object(
    info: ObjectInfo, body: bytes, vaulted: ObjectInfo | None, vault_body: bytes
) -> ArchivedLeaves:
    """Verify a pair; what it holds, and what is wrong with it. CPU: to be run in a thread.

    ``vaulted`` is None where the vault has no readable object for the range.
    """
    log = str(info.name)
    key = archive_key(info.name, info.first_leaf)
    found = ArchivedLeaves(info.first_leaf)

    def wrong(what: str, *, kind: Kind = Kind.CHANGED, leaf: int | None = None) -> None:
        found.sound = False
        found.problems.append(Finding(kind, Store.ARCHIVE, log, what, leaf=leaf, place=key))

    if sha256(body).digest() != info.body_sha256:
        wrong("the body is not the one that its metadata names")
    leaf = info.first_leaf
    try:
        for count, block in ocf.blocks(body):
            facts = archive_facts.leaves(block, count)
            for number in facts.wrong:
                wrong("the event is not what was hashed", leaf=leaf + number)
            found.places += facts.places
            found.server += facts.server
            found.hashes += facts.hashes
            found.sealed += facts.sealed
            leaf += count
    except ValueError as error:
        wrong(f"cannot be read from leaf {leaf} on: {error}", leaf=leaf)
    if leaf != info.next_leaf:
        wrong(f"holds leaves up to {leaf - 1}, its metadata says {info.last_leaf}")
    for expected, index in _out_of_place(found):
        what = f"leaf {index} stands in the place of leaf {expected}"
        wrong(what, kind=Kind.REORDERED, leaf=expected)
    if Frontier().append_packed(bytes(found.hashes), PARENTS).root() != info.root:
        wrong("its root is not the one of its leaves", kind=Kind.INCONSISTENT)
    _check_blobs(found, info, vaulted, vault_body)
    return found


def _out_of_place(found: ArchivedLeaves) -> list[tuple[int, int]]:
    """Where another leaf stands: the index that belongs there, and the one that does not."""
    if archive_facts.indexes_follow(found.places, found.first_leaf):
        return []
    indexes = archive_facts.longs(found.places, PLACE.size, 0)
    return [(at, index) for at, index in enumerate(indexes, found.first_leaf) if at != index]


def _check_blobs(
    found: ArchivedLeaves, info: ObjectInfo, vaulted: ObjectInfo | None, body: bytes
) -> None:
    log, key = str(info.name), blobs_key(info.name, info.first_leaf)
    problems = found.problems

    def changed(what: str) -> None:
        problems.append(
            Finding(Kind.CHANGED, Store.VAULT, log, what, leaf=info.first_leaf, place=key)
        )

    if vaulted is None:
        what, first = "the object of personal data", info.first_leaf
        held = tuple(_absent_blobs(Store.VAULT, log, _sealed(found), _times(found), key))
        part = Part.VAULT_OBJECT
        found.absences.append(Absence(part, Store.VAULT, log, first, what, place=key, held=held))
        return
    if sha256(body).digest() != vaulted.body_sha256:
        changed("the body is not the one that its metadata names")
    if vaulted.root != info.root:
        changed("its metadata names other leaves than the archive's object")
    try:
        for count, block in ocf.blocks(body):
            found.blobs += archive_facts.blobs(block, count)
    except ValueError as error:
        changed(f"cannot be read: {error}")
        return
    if archive_facts.column(found.blobs, BLOB.size, 0, SEALED.size) != found.sealed:
        for one in compare_subjects(
            Store.VAULT, log, _sealed(found), owners(found.blobs), _times(found), key
        ):
            if isinstance(one, Finding):
                problems.append(one)
            else:
                found.absences.append(one)


def _sealed(found: ArchivedLeaves) -> set[tuple[int, bytes]]:
    return set(SEALED.iter_unpack(found.sealed))


def _times(found: ArchivedLeaves) -> Callable[[int], int | None]:
    """Leaf → when its event occurred."""
    times = {leaf: at + POSTGRES_EPOCH_US for leaf, _id, at in PLACE.iter_unpack(found.places)}
    return times.get


def owners(blobs: bytes | bytearray) -> Mapping[tuple[int, bytes], bytes]:
    """(leaf, subject_ref) → hash of the blob."""
    return {(leaf, ref): digest for leaf, ref, digest in BLOB.iter_unpack(blobs)}


def compare_subjects(
    store: Store,
    log: str,
    sealed: set[tuple[int, bytes]],
    held: Mapping[tuple[int, bytes], bytes],
    occurred_at_us: Callable[[int], int | None],
    place: str | None = None,
) -> list[Problem]:
    """Whether a store has the blobs that the events seal values for, and none beyond."""
    if held.keys() == sealed:
        return []
    found: list[Problem] = []
    found += _absent_blobs(store, log, sealed - held.keys(), occurred_at_us, place)
    found += [
        Finding(Kind.ADDED, store, log, f"a blob of subject {ref.hex()}, of which the event seals nothing",
                leaf=leaf, place=place)
        for leaf, ref in sorted(held.keys() - sealed)
    ]  # fmt: skip
    return found


def _absent_blobs(
    store: Store,
    log: str,
    absent: set[tuple[int, bytes]],
    occurred_at_us: Callable[[int], int | None],
    place: str | None,
) -> list[Absence]:
    return [
        Absence(
            Part.BLOB,
            store,
            log,
            leaf,
            f"the blob of subject {ref.hex()}",
            place=place,
            occurred_at_us=occurred_at_us(leaf),
            subject=ref,
        )
        for leaf, ref in sorted(absent)
    ]


def blobs_within(blobs: bytearray, first: int, end: int) -> dict[tuple[int, bytes], bytes]:
    """The vault's blobs of some leaves; they stand in the order of their leaves."""
    size = BLOB.size
    low, high = 0, len(blobs) // size
    while low < high:
        middle = (low + high) // 2
        if BLOB.unpack_from(blobs, middle * size)[0] < first:
            low = middle + 1
        else:
            high = middle
    to = low
    while to * size < len(blobs) and BLOB.unpack_from(blobs, to * size)[0] < end:
        to += 1
    return dict(owners(blobs[low * size : to * size]))
