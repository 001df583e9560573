"""Bundles: the file that an export is, written from front to end with one part in memory at a time.

A tar file, since it is written without knowing what follows, any system unpacks it, and a header has
few enough fields that all of them can be fixed: every byte of a bundle follows from the names and
contents of its members, so that no byte can be changed unseen. Source: POSIX ustar; RFC.md §14.
"""

from __future__ import annotations

import gzip
import json
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from typing import IO, Any, Literal, cast
from uuid import UUID

from pipeline.compliance.export_read import ExportedEvent
from pipeline.domain.canonical import Value, canonical_json
from pipeline.domain.logs import LogName
from sinks.archive_format import LEAF_SCHEMA, leaf_datums
from sinks.ocf import encode_long, sync_marker

EventsFormat = Literal["ndjson", "avro"]

FORMAT = "audit-trail-export"
FORMAT_VERSION = 1
MANIFEST, SIGNATURE, README = "manifest.json", "manifest.sig", "README.txt"
PART_BYTES = 32 * 1024 * 1024  # that a part's events hold in memory: some 8 MiB of canonical bytes
_BLOCK = 512
# Commitments are most of an event and do not shrink: level 6 gains 2 % on level 1 at four times the cost.
_LEVEL = 1

README_TEXT = """A bundle of an audit trail: events, and what proves them.

events/<log>/      the events, in the order of their leaves; "event" is what was hashed
opened/<log>/      personal data of these events, where it was exported
proofs/<log>/      hashes that lead from the events to the root of the newest checkpoint
checkpoints/<log>/ signed heads of the log
consistency/       hashes that lead from each checkpoint to the next one
schemas/           what the fields of the events mean
manifest.json      who exported what, and the SHA-256 of every member
manifest.sig       its signature

Verify it before you rely on it, with a key that you got from the operator of the trail on another way:

    audit-trail verify-bundle FILE --key VKEY

or with one file of Python that you can read in an hour (audit-trail verify-bundle --print-verifier).
"""


def tar_header(name: str, size: int) -> bytes:
    """The header of a member: everything but name, size and checksum is fixed.

    Raises:
        ValueError: The name is too long or not ASCII, or the member too large.
    """
    encoded = name.encode("ascii")
    if len(encoded) > 100 or size >= 1 << 33:
        raise ValueError(f"{name} does not fit a header")
    header = bytearray(_BLOCK)
    for at, text in (
        (0, encoded),
        (100, b"0000644"),
        (108, b"0000000"),
        (116, b"0000000"),
        (124, b"%011o" % size),
        (136, b"%011o" % 0),
        (148, b" " * 8),
        (156, b"0"),
        (257, b"ustar\x0000"),
        (329, b"0000000"),
        (337, b"0000000"),
    ):
        header[at : at + len(text)] = text
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


class BundleWriter:
    """Appends members to an open file and remembers them for the manifest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.members: list[dict[str, str | int]] = []

    def add(self, name: str, body: bytes) -> None:
        """One member that the manifest lists."""
        self._append(name, body)
        self.members.append({"bytes": len(body), "name": name, "sha256": sha256(body).hexdigest()})

    def content_sha256(self) -> str:
        """SHA-256, hexadecimal, over a line for each member so far: ``<its SHA-256>  <name>``."""
        lines = "".join(f"{member['sha256']}  {member['name']}\n" for member in self.members)
        return sha256(lines.encode()).hexdigest()

    def finish(self, manifest: dict[str, Any], signature: bytes) -> None:
        """Manifest, signature, and the end of the file. The manifest is ``manifest_bytes``' input."""
        self._append(MANIFEST, manifest_bytes(manifest))
        self._append(SIGNATURE, signature)
        self._file.write(bytes(2 * _BLOCK))

    def _append(self, name: str, body: bytes) -> None:
        self._file.write(tar_header(name, len(body)))
        self._file.write(body)
        self._file.write(bytes(-len(body) % _BLOCK))


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """The manifest as it is hashed: canonical JSON."""
    return canonical_json(cast("Value", manifest))


def manifest_text(origin: str, manifest: bytes) -> str:
    """What is signed: two lines, so that it can be taken for no checkpoint, which has three."""
    return f"{origin}/export/v1\n{b64encode(sha256(manifest).digest()).decode()}\n"


@dataclass(slots=True)
class Part:
    """Consecutive events of one log's export, with the hashes before and between them."""

    name: LogName
    events: list[ExportedEvent] = field(default_factory=list)
    opened: list[bytes] = field(default_factory=list)  # lines
    hashes: list[bytes] = field(default_factory=list)
    held_bytes: int = 0

    def add(
        self, one: ExportedEvent, hashes: Sequence[bytes], opened: Mapping[str, Any] | None
    ) -> None:
        """One event more; ``hashes`` prove what lies between it and the one before."""
        self.events.append(one)
        self.hashes += hashes
        self.held_bytes += one.event.held_bytes + 32 * len(hashes)
        if opened:
            row: dict[str, Any] = {"leaf_index": one.leaf_index, "subjects": dict(opened)}
            self.opened.append(canonical_json(row))
            self.held_bytes += len(self.opened[-1])

    def write(self, bundle: BundleWriter, events_format: EventsFormat) -> None:
        """The part as members."""
        first = f"{self.name}/{self.events[0].leaf_index:019d}"
        if events_format == "avro":
            bundle.add(f"events/{first}.avro", avro_file(first, self.events))
        else:
            lines = [event_line(one) for one in self.events]
            bundle.add(f"events/{first}.ndjson.gz", gzipped(lines))
        if self.opened:
            bundle.add(f"opened/{first}.ndjson.gz", gzipped(self.opened))
        if self.hashes:
            bundle.add(f"proofs/{first}", b"".join(self.hashes))


def event_line(one: ExportedEvent) -> bytes:
    """A line of NDJSON: what the server set, then the event's bytes as they were hashed, last."""
    event = one.event
    beside = {
        "leaf_index": one.leaf_index,
        "event_id": str(UUID(bytes=event.event_id)),
        "occurred_at": event.occurred_at_us,
        "stored_at": event.stored_at_us,
        "broker_timestamp": event.broker_timestamp_ms,
        "schema_id": event.schema_id,
        "source_offset": event.offset,
        "actor_ref": None if event.actor_ref is None else str(UUID(bytes=event.actor_ref)),
        "leaf_hash": event.leaf_hash.hex(),
    }
    head = json.dumps(beside, separators=(",", ":")).encode()
    return head[:-1] + b',"event":' + event.canonical + b"}"


def gzipped(lines: Sequence[bytes]) -> bytes:
    """Lines as one gzip stream without a time in it: the same lines give the same bytes."""
    return gzip.compress(b"".join([line + b"\n" for line in lines]), _LEVEL, mtime=0)


def avro_file(name: str, events: Sequence[ExportedEvent]) -> bytes:
    """An Avro container file of ``audit.archive.v1.Leaf``; codec deflate, which every library has."""
    sync = sync_marker(f"export/{name}")
    schema = json.dumps(LEAF_SCHEMA, separators=(",", ":")).encode()
    out = BytesIO()
    out.write(b"Obj\x01" + encode_long(2))
    for text in (b"avro.codec", b"deflate", b"avro.schema", schema):
        out.write(encode_long(len(text)) + text)
    out.write(encode_long(0) + sync)
    datums = b"".join(piece for one in events for piece in leaf_datums([one.event], one.leaf_index))
    deflate = zlib.compressobj(_LEVEL, wbits=-15)
    packed = deflate.compress(datums) + deflate.flush()
    out.write(encode_long(len(events)) + encode_long(len(packed)) + packed + sync)
    return out.getvalue()
