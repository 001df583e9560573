"""What the two objects of a leaf range look like: keys, Avro schemas, datums, metadata.

Format version 1, fixed for ever: whoever holds both objects and the keys can read and verify the
range with any Avro library, without this project.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.domain.logs import LogName
from pipeline.domain.records import SealedBlob, SealedEvent
from pipeline.native import native, runs
from sinks.ocf import encode_long, encode_longs, encode_times

FORMAT_VERSION = 1
_BLOB_PARTS = 5
ARCHIVE_PREFIX = "archive/"
BLOBS_PREFIX = "blobs/"

_HASH = {"type": "fixed", "name": "Hash", "size": 32}
_EVENT_ID = {"type": "fixed", "name": "EventId", "size": 16}
_SUBJECT_REF = {"type": "fixed", "name": "SubjectRef", "size": 16}
_NONCE = {"type": "fixed", "name": "Nonce", "size": 12}
_MICROS = {"type": "long", "logicalType": "timestamp-micros"}
_MILLIS = {"type": "long", "logicalType": "timestamp-millis"}

LEAF_SCHEMA: Mapping[str, Any] = {
    "type": "record",
    "name": "Leaf",
    "namespace": "audit.archive.v1",
    "doc": "One leaf of a log: the sealed event exactly as hashed, and what the server set.",
    "fields": [
        {"name": "leaf_index", "type": "long"},
        {"name": "event_id", "type": _EVENT_ID},
        {"name": "occurred_at", "type": _MICROS},
        {"name": "stored_at", "type": _MICROS},
        {"name": "broker_timestamp", "type": _MILLIS},
        {"name": "schema_id", "type": "int", "doc": "Registry id of the writer's schema."},
        {"name": "source_offset", "type": "long"},
        {"name": "actor_ref", "type": ["null", _SUBJECT_REF]},
        {"name": "leaf_hash", "type": _HASH, "doc": "SHA-256(0x00 || event)."},
        {"name": "event", "type": "bytes", "doc": "Canonical JSON, UTF-8."},
    ],
}
BLOB_SCHEMA: Mapping[str, Any] = {
    "type": "record",
    "name": "Blob",
    "namespace": "audit.archive.v1",
    "doc": "The personal data of one subject in one event; AES-256-GCM, associated data = "
    "event id || subject_ref.",
    "fields": [
        {"name": "leaf_index", "type": "long"},
        {"name": "subject_ref", "type": _SUBJECT_REF},
        {"name": "nonce", "type": _NONCE},
        {"name": "ciphertext", "type": "bytes"},
    ],
}


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What an object's metadata says. Both objects of a range agree in all but the last two.

    ``root`` is the RFC 6962 root over just these leaves, so it binds the blobs to their events.
    """

    name: LogName
    first_leaf: int
    last_leaf: int
    first_offset: int
    next_offset: int
    min_occurred_at_us: int
    max_occurred_at_us: int
    root: bytes
    records: int  # datums in this object
    body_sha256: bytes

    @property
    def next_leaf(self) -> int:
        """The index after the last leaf of the object."""
        return self.last_leaf + 1

    def to_metadata(self) -> dict[str, str]:
        """As S3 user metadata."""
        return {
            "audit-format": str(FORMAT_VERSION),
            "audit-log": str(self.name),
            "audit-first-leaf": str(self.first_leaf),
            "audit-last-leaf": str(self.last_leaf),
            "audit-first-offset": str(self.first_offset),
            "audit-next-offset": str(self.next_offset),
            "audit-min-occurred-at": str(self.min_occurred_at_us),
            "audit-max-occurred-at": str(self.max_occurred_at_us),
            "audit-root": self.root.hex(),
            "audit-records": str(self.records),
            "audit-sha256": self.body_sha256.hex(),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> ObjectInfo:
        """Read back what ``to_metadata`` gave.

        Raises:
            ValueError: Not written by this project, or in a later format.
        """
        try:
            if metadata["audit-format"] != str(FORMAT_VERSION):
                raise ValueError(f"archive format {metadata['audit-format'][:20]} is not known")
            return cls(
                name=LogName.parse(metadata["audit-log"]),
                first_leaf=int(metadata["audit-first-leaf"]),
                last_leaf=int(metadata["audit-last-leaf"]),
                first_offset=int(metadata["audit-first-offset"]),
                next_offset=int(metadata["audit-next-offset"]),
                min_occurred_at_us=int(metadata["audit-min-occurred-at"]),
                max_occurred_at_us=int(metadata["audit-max-occurred-at"]),
                root=bytes.fromhex(metadata["audit-root"]),
                records=int(metadata["audit-records"]),
                body_sha256=bytes.fromhex(metadata["audit-sha256"]),
            )
        except KeyError as missing:
            raise ValueError(f"metadata {missing} is missing") from None


def archive_prefix(name: LogName) -> str:
    """Where the archive objects of a log are; their names sort by first leaf."""
    return f"{ARCHIVE_PREFIX}{name}/"


def archive_key(name: LogName, first_leaf: int) -> str:
    """The object of sealed events that begins with a leaf."""
    return f"{ARCHIVE_PREFIX}{name}/{first_leaf:019d}.avro"


def blobs_key(name: LogName, first_leaf: int) -> str:
    """The object of encrypted personal data that belongs to it, in the vault bucket."""
    return f"{BLOBS_PREFIX}{name}/{first_leaf:019d}.avro"


class Blobs(NamedTuple):
    """Datums of ``BLOB_SCHEMA`` in pieces, how many they are, and the subjects that they name."""

    pieces: list[bytes]
    datums: int
    refs: Collection[bytes]


def leaf_datums(events: Sequence[SealedEvent], first_leaf: int) -> list[bytes]:
    """Datums of ``LEAF_SCHEMA`` in pieces: one after the other, they are the encoding."""
    pieces: list[bytes] = []
    for at, compiled, run in runs(events):
        if compiled:
            pieces.append(native.leaf_datums(run, first_leaf + at))
        else:
            pieces += _leaf_datums(run, first_leaf + at)
    return pieces


def blob_datums(events: Sequence[SealedEvent], first_leaf: int) -> Blobs:
    """The blobs of some events, leaf by leaf."""
    pieces: list[bytes] = []
    count, refs = 0, set[bytes]()
    for at, compiled, run in runs(events):
        if compiled:
            datums, blobs, named = native.blob_datums(run, first_leaf + at)
            pieces.append(datums)
        else:
            parts = _blob_datums(run, first_leaf + at)
            blobs, named = len(parts) // _BLOB_PARTS, parts[1::_BLOB_PARTS]
            pieces += parts
        count += blobs
        refs.update(named)
    return Blobs(pieces, count, refs)


def blob_datum(leaf: int, blob: SealedBlob) -> bytes:
    """The datum of ``BLOB_SCHEMA`` of one blob."""
    ref, nonce, ciphertext = blob
    return b"".join((encode_long(leaf), ref, nonce, encode_long(len(ciphertext)), ciphertext))


def _leaf_datums(events: Sequence[SealedEvent], first_leaf: int) -> list[bytes]:
    parts: list[bytes] = []
    extend = parts.extend
    stored_at = broker_timestamp = schema_id = -1
    server_set = b""
    for event, leaf, occurred_at, offset in zip(
        events,
        encode_longs(range(first_leaf, first_leaf + len(events))),
        encode_times([event.occurred_at_us for event in events]),
        encode_longs([event.offset for event in events]),
        strict=True,
    ):
        # Neighbours nearly always share these three: encode them when they change.
        if (
            event.broker_timestamp_ms != broker_timestamp
            or event.stored_at_us != stored_at
            or event.schema_id != schema_id
        ):
            stored_at, schema_id = event.stored_at_us, event.schema_id
            broker_timestamp = event.broker_timestamp_ms
            server_set = (
                encode_long(stored_at) + encode_long(broker_timestamp) + encode_long(schema_id)
            )
        canonical, actor_ref = event.canonical, event.actor_ref
        extend(
            (
                leaf,
                event.event_id,
                occurred_at,
                server_set,
                offset,
                b"\x00" if actor_ref is None else b"\x02" + actor_ref,  # the union's branch
                event.leaf_hash,
                encode_long(len(canonical)),
                canonical,
            )
        )
    return parts


def _blob_datums(events: Sequence[SealedEvent], first_leaf: int) -> list[bytes]:
    """In ``_BLOB_PARTS`` pieces each."""
    parts: list[bytes] = []
    extend = parts.extend
    leaves = encode_longs(range(first_leaf, first_leaf + len(events)))
    for event, leaf in zip(events, leaves, strict=True):
        for ref, nonce, ciphertext in event.blobs:
            extend((leaf, ref, nonce, encode_long(len(ciphertext)), ciphertext))
    return parts
