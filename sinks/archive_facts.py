"""What a comparison needs of archived leaves, packed: their facts, their hashes computed anew, whose
values they seal.

Guarantees that no hash given here was read: each is of the canonical bytes. Two forms, one result
(``tests/unit/test_archive_facts.py``): compiled, and Python, which says what is right.
"""

from __future__ import annotations

import struct
import sys
from array import array
from hashlib import sha256
from typing import NamedTuple

import orjson

from pipeline.domain.escrow import NOBODY
from pipeline.domain.merkle import HASH_BYTES
from pipeline.native import native
from sinks.documents import uuid_text
from sinks.rows import POSTGRES_EPOCH_US

# Times in µs since 2000, as PostgreSQL sends them: the ledger gives the same bytes, so that thousands
# of leaves are compared in one step.
PLACE = struct.Struct("!q16sq")  # leaf index, event id, occurred_at
# stored_at, broker timestamp, schema id, source offset, actor_ref behind whether there is one
SERVER = struct.Struct("!qqiq?16s")
SEALED = struct.Struct("!q16s")  # leaf index, subject_ref
BLOB = struct.Struct("!q16s32s")  # leaf index, subject_ref, SHA-256(nonce ‖ ciphertext)

_LONG_BITS = 64


class LeafFacts(NamedTuple):
    """Of the leaves of one block, in their order."""

    places: bytes  # ``PLACE`` each
    server: bytes  # ``SERVER`` each: what the server set beside the event
    hashes: bytes  # 32 bytes each: SHA-256(0x00 ‖ canonical bytes)
    sealed: bytes  # ``SEALED`` for each subject of each leaf but those that are ``wrong``
    wrong: list[
        int
    ]  # numbers in the block: not the stored hash, or the event says another id or time


def leaves(block: bytes, count: int) -> LeafFacts:
    """Read a block of ``count`` datums of ``sinks.archive_format.LEAF_SCHEMA``.

    Raises:
        ValueError: A datum is malformed; the message has its number in the block.
    """
    if native is not None:
        return LeafFacts(*native.archived_leaves(block, count))
    return plain_leaves(block, count)


def blobs(block: bytes, count: int) -> bytes:
    """``BLOB`` for each of the ``count`` datums of ``sinks.archive_format.BLOB_SCHEMA`` in a block.

    Raises as ``leaves``.
    """
    if native is not None:
        return native.archived_blobs(block, count)
    return plain_blobs(block, count)


def column(packed: bytes | bytearray, size: int, start: int, width: int) -> bytes:
    """The bytes ``start`` to ``start + width`` of every record of ``size`` bytes, one after the other: as
    many copies as ``width``, whatever the number of records.
    """
    taken = bytearray(len(packed) // size * width)
    for place in range(width):
        taken[place::width] = packed[start + place :: size]
    return bytes(taken)


def longs(packed: bytes | bytearray, size: int, start: int) -> array[int]:
    """The big-endian longs at ``start`` of every record of ``size`` bytes."""
    found = array("q", column(packed, size, start, 8))
    if sys.byteorder == "little":
        found.byteswap()
    return found


def indexes_follow(places: bytes | bytearray, first: int) -> bool:
    """Whether the leaves of ``PLACE`` records are ``first`` and those after it, in their order."""
    count = len(places) // PLACE.size
    return longs(places, PLACE.size, 0) == array("q", range(first, first + count))


def plain_leaves(block: bytes, count: int) -> LeafFacts:
    """``leaves``, in Python."""
    datums = _Datums(block)
    places, server, hashes, sealed = bytearray(), bytearray(), bytearray(), bytearray()
    wrong: list[int] = []
    for number in range(count):
        try:
            place, of_server, stored, canonical = _leaf(datums)
            places += PLACE.pack(*place)
            server += SERVER.pack(*of_server)
        except (IndexError, ValueError, struct.error):
            raise _refused(number) from None
        computed = sha256(b"\x00" + canonical).digest()
        hashes += computed
        subjects = subjects_of(canonical, place[1], place[2] + POSTGRES_EPOCH_US)
        if computed != stored or subjects is None:
            wrong.append(number)
        else:
            for subject_ref in subjects:
                sealed += SEALED.pack(place[0], subject_ref)
    if not datums.at_end:
        raise _refused(count)
    return LeafFacts(bytes(places), bytes(server), bytes(hashes), bytes(sealed), wrong)


def plain_blobs(block: bytes, count: int) -> bytes:
    """``blobs``, in Python."""
    datums = _Datums(block)
    found = bytearray()
    for number in range(count):
        try:
            leaf, subject_ref = datums.long(), datums.take(16)
            digest = sha256(datums.take(12))
            digest.update(datums.take(datums.long()))
            found += BLOB.pack(leaf, subject_ref, digest.digest())
        except (IndexError, ValueError, struct.error):
            raise _refused(number) from None
    if not datums.at_end:
        raise _refused(count)
    return bytes(found)


def subjects_of(canonical: bytes, event_id: bytes, occurred_at_us: int) -> list[bytes] | None:
    """The subjects that a sealed event has values of, but the one without a key; None: it is no such
    event, or says another id or time.
    """
    try:
        event = orjson.loads(canonical)
        clear, names = event["clear"], list(event["sealed"])
        if clear["event_id"] != uuid_text(event_id) or clear["occurred_at"] != occurred_at_us:
            return None
        refs = [bytes.fromhex(name.replace("-", "")) for name in names]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if any(len(ref) != 16 or uuid_text(ref) != name for ref, name in zip(refs, names, strict=True)):
        return None
    return [ref for ref in refs if ref != NOBODY]


class _Datums:
    """A block, read from the front. Past its end: ``IndexError``."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._block)

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._block) - self._at:
            raise IndexError
        taken = self._block[self._at : self._at + count]
        self._at += count
        return taken

    def long(self) -> int:
        number = shift = 0
        while True:
            (byte,) = self.take(1)
            if shift >= _LONG_BITS or (shift == _LONG_BITS - 1 and byte > 1):
                raise ValueError("a long has 64 bits")
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (number >> 1) ^ -(number & 1)
            shift += 7


def _leaf(
    datums: _Datums,
) -> tuple[tuple[int, bytes, int], tuple[int, int, int, int, bool, bytes], bytes, bytes]:
    """What ``PLACE`` and ``SERVER`` pack, the stored hash, the canonical bytes."""
    leaf, event_id = datums.long(), datums.take(16)
    occurred, stored, broker_ms = datums.long(), datums.long(), datums.long()
    schema_id, offset, branch = datums.long(), datums.long(), datums.long()
    if branch not in (0, 1):
        raise ValueError("no such branch")
    actor_ref = datums.take(16) if branch else bytes(16)
    leaf_hash = datums.take(HASH_BYTES)
    canonical = datums.take(datums.long())
    epoch = POSTGRES_EPOCH_US
    server = (stored - epoch, broker_ms * 1000 - epoch, schema_id, offset, bool(branch), actor_ref)
    return (leaf, event_id, occurred - epoch), server, leaf_hash, canonical


def _refused(number: int) -> ValueError:
    return ValueError(f"datum {number} of the block is malformed")
