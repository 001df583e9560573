"""Verifies a bundle of an audit trail, or the proof of one event: offline, without trust in the sender.

It needs the standard library and the package `cryptography`, opens no connection and writes nothing:

    python3 -I verify.py BUNDLE --key VKEY
    python3 -I verify.py EVENT.tlog-proof --key VKEY --event EVENT.json

VKEY is a verifier key that you got from the trail's operator on another way than the bundle: keys inside
it would prove nothing, so there are none. Exit status 0 means:
 1. The manifest is signed by a key that you named, and every member is the one that it lists.
 2. Each event's bytes hash to a leaf, and the leaves lead to the root of a checkpoint that such a key
    signed: these events stood in the log at these places when it was signed.
 3. The checkpoints of a log that are in the bundle are of one history: nothing before was rewritten.
 4. Opened values are those that their events committed to; counts and filters are as the manifest says.
It does not mean that nothing was left out, unless it says "complete from leaf a to b".

Sources: RFC 6962 §2.1 (trees), RFC 7693 (BLAKE2b), RFC 8032 (Ed25519), POSIX ustar, Apache Avro 1.12,
https://c2sp.org (signed-note, tlog-checkpoint, tlog-cosignature, tlog-proof), the trail's RFC.md §3, §14.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT, VERSION, MANIFEST, SIGNATURE = "audit-trail-export", 1, "manifest.json", "manifest.sig"
MEMBER_MAX = 64 * 1024 * 1024  # bytes of a member, and of what it inflates to
PROBLEMS_MAX = 100  # listed; more are counted
LOG_KEY, WITNESS_KEY = 1, 4  # algorithms: Ed25519 over a text; Ed25519 over a time and a text


class Refused(Exception):
    """Something is not as it must be: where, and what."""

    def __str__(self) -> str:
        return ": ".join(self.args)


# ---- The container: a tar file in which every byte is determined by names and contents ------------


def tar_header(name: str, size: int) -> bytes:
    """The one header (POSIX ustar, 512 bytes) that a member of this name and size may have."""
    begin = name.encode("ascii").ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2  # mode, owners
    begin += b"%011o\0" % size + b"00000000000\0"  # size, time
    end = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
    # The checksum is a sum over the header in which it counts as eight spaces.
    return begin + b"%06o\0 " % sum(begin + b" " * 8 + end) + end


class Bundle:
    """The members of an open bundle, by name. Nothing stands between, before or behind them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        file.seek(0)
        while (header := self._exactly(512)) != bytes(512):
            try:
                name, size = header[:100].rstrip(b"\0").decode("ascii"), int(header[124:135], 8)
                canonical = bool(name) and size >= 0 and header == tar_header(name, size)
            except ValueError:
                canonical = False
            if not canonical or name in self._places:
                raise Refused("bundle", f"header {len(self._places) + 1} is none, or comes twice")
            self._places[name] = (file.tell(), size)
            file.seek(size, 1)
            if any(self._exactly(-size % 512)):
                raise Refused(name, "what fills its last block is not zero")
        if any(self._exactly(512)) or file.read(1):
            raise Refused("bundle", "something stands behind its end")
        self.names = list(self._places)
        self.unread = {*self.names}

    def read(self, name: str) -> bytes:
        self.unread.discard(name)
        at, size = self._places.get(name, (0, -1))
        if not 0 <= size <= MEMBER_MAX:
            raise Refused(name, "it is not in the bundle" if size < 0 else "it is too long")
        self._file.seek(at)
        return self._exactly(size)

    def lines(self, name: str) -> list[bytes]:
        """The lines of a member that is one gzip stream (RFC 1952) of lines."""
        return inflated(name, self.read(name), 31).split(b"\n")[:-1]

    def _exactly(self, size: int) -> bytes:
        found = self._file.read(size)
        if len(found) != size:
            raise Refused("bundle", "it ends too early")
        return found


def inflated(where: str, packed: bytes, wbits: int) -> bytes:
    """One whole stream, within a bound. ``wbits`` 31: gzip; -15: deflate without a header."""
    stream = zlib.decompressobj(wbits)
    try:
        plain = stream.decompress(packed, MEMBER_MAX)
    except zlib.error:
        plain = b""
    if not stream.eof or stream.unused_data:
        raise Refused(where, "it does not inflate to something of a sound length")
    return plain


# ---- Signed notes (C2SP signed-note, tlog-checkpoint, tlog-cosignature) ---------------------------


class Key(NamedTuple):
    """A verifier key; its key id is the beginning of a hash over all three."""

    name: str
    algorithm: int
    public: bytes

    @property
    def key_id(self) -> bytes:
        return sha256(self.name.encode() + bytes([10, self.algorithm]) + self.public).digest()[:4]


class Checkpoint(NamedTuple):
    """What a log was when it was signed: its one name, its number of leaves, its Merkle root."""

    origin: str
    size: int
    root: bytes


def parse_key(text: str) -> Key:
    """``<name>+<key id, hexadecimal>+<base64 of algorithm and public key>``."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    decoded = from_base64(encoded)
    key = Key(name, decoded[0] if decoded else 0, decoded[1:])
    if not name or key.key_id.hex() != key_id or key.algorithm not in (LOG_KEY, WITNESS_KEY):
        raise Refused("key", f"{text[:80]!r} is not a verifier key")
    return key


def from_base64(text: str) -> bytes:
    """What base64 in its one canonical form (RFC 4648 §3.5) says; of any other text, nothing."""
    try:
        decoded = b64decode(text, validate=True)
    except ValueError:
        decoded = b""
    return decoded if b64encode(decoded).decode() == text else b""


def verify_note(where: str, note: bytes, keys: Sequence[Key]) -> tuple[str, set[Key]]:
    """The text of a note, and which of the keys signed it: a log's key at least. A signature of a key that
    was not named counts for nothing; one that says it is of a named key must hold."""
    text, _, lines = note.decode("utf-8", "replace").rpartition("\n\n")
    text, signers = text + "\n", set[Key]()
    for line in lines.removesuffix("\n").split("\n"):
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        key_id, signature = from_base64(encoded)[:4], from_base64(encoded)[4:]
        if dash != "—" or not name or not signature or not lines.endswith("\n"):
            raise Refused(where, "it is not a text with signatures below")
        for key in keys:
            if (key.name, key.key_id) == (name, key_id):
                message = text.encode()
                if key.algorithm == WITNESS_KEY:
                    time, signature = int.from_bytes(signature[:8], "big"), signature[8:]
                    message = f"cosignature/v1\ntime {time}\n{text}".encode()
                try:
                    Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
                except (InvalidSignature, ValueError):
                    raise Refused(where, f"the signature of {name} is not of this text") from None
                signers.add(key)
    if LOG_KEY not in {key.algorithm for key in signers}:
        raise Refused(where, "no key that you named has signed it")
    return text, signers


def check_witnesses(where: str, keys: Sequence[Key], signers: set[Key]) -> None:
    """Every witness that was named has cosigned."""
    for key in keys:
        if key.algorithm == WITNESS_KEY and key not in signers:
            raise Refused(where, f"the witness {key.name} has not cosigned it")


def parse_checkpoint(where: str, text: str) -> Checkpoint:
    """Three lines: origin, size, base64 of the root."""
    origin, size, root, *rest = [*text.split("\n"), "", "", ""]
    decoded = from_base64(root)
    if not origin or not decimal(size) or len(decoded) != 32 or rest != ["", "", "", ""]:
        raise Refused(where, "it is not a checkpoint: origin, size, root")
    return Checkpoint(origin, int(size), decoded)


def decimal(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20 and str(int(text)) == text


# ---- Merkle trees (RFC 6962 §2.1) -----------------------------------------------------------------
# A tree over more than one leaf has, on its left, the largest power of two of leaves below their number.
# The functions below walk that tree and take from a proof what they cannot work out. A hash too few is
# taken as nothing, which leads to no root that was signed; ``no_more`` finds one too many.


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def middle_of(first: int, end: int) -> int:
    """Where the right part of the tree over leaves ``first`` to ``end - 1`` begins."""
    return first + (1 << ((end - first - 1).bit_length() - 1))


def hashes(where: str, texts: Sequence[str]) -> Iterator[bytes]:
    for text in texts:
        if len(found := from_base64(text)) != 32:
            raise Refused(where, "a line of the proof is no hash")
        yield found


def no_more(where: str, proof: Iterator[bytes]) -> None:
    if next(proof, None) is not None:
        raise Refused(where, "the proof has too many hashes")


class Leaves:
    """Leaves (index, hash) in the order of their indexes, with a look at the next one."""

    def __init__(self, leaves: Iterator[tuple[int, bytes]]) -> None:
        self._leaves = leaves
        self.next = next(leaves, None)

    def take(self) -> bytes:
        found, self.next = self.next, next(self._leaves, None)
        return found[1] if found else b""


def root_of_some(leaves: Leaves, first: int, end: int, proof: Iterator[bytes]) -> bytes:
    """The root over leaves ``first`` to ``end - 1``, some of them known: for each largest part of the tree
    in which none is, the proof has one hash, from left to right."""
    if leaves.next is None or leaves.next[0] >= end:
        return next(proof, b"")
    if end - first == 1:
        return leaves.take()
    middle = middle_of(first, end)
    left = root_of_some(leaves, first, middle, proof)
    return node_hash(left, root_of_some(leaves, middle, end, proof))


def root_of_one(leaf: bytes, index: int, first: int, end: int, proof: Iterator[bytes]) -> bytes:
    """The root by an inclusion proof, whose hashes go from the leaf upwards (§2.1.1)."""
    if end - first == 1:
        return leaf
    middle = middle_of(first, end)
    if index < middle:
        return node_hash(root_of_one(leaf, index, first, middle, proof), next(proof, b""))
    right = root_of_one(leaf, index, middle, end, proof)
    return node_hash(next(proof, b""), right)


def both_roots(
    old: Checkpoint, first: int, end: int, proof: Iterator[bytes], *, whole: bool = True
) -> tuple[bytes, bytes]:
    """The roots of the older and of the newer log by a consistency proof (§2.1.2)."""
    if old.size == end:
        found = old.root if whole else next(proof, b"")
        return found, found
    middle = middle_of(first, end)
    if old.size <= middle:
        older, newer = both_roots(old, first, middle, proof, whole=whole)
        return older, node_hash(newer, next(proof, b""))
    older, newer = both_roots(old, middle, end, proof, whole=False)
    left = next(proof, b"")
    return node_hash(left, older), node_hash(left, newer)


# ---- Events ---------------------------------------------------------------------------------------

FIELDS = "leaf_index event_id occurred_at stored_at broker_timestamp schema_id source_offset actor_ref leaf_hash event"


class Event(NamedTuple):
    """An event of a bundle. Only ``entry``, its canonical JSON, was hashed; the rest stands beside it."""

    leaf_index: int
    event_id: str
    occurred_at: int  # µs
    schema_id: int
    leaf_hash: bytes
    entry: bytes


def canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def read_json(where: str, text: bytes) -> dict[str, Any]:
    """A JSON object in canonical form: sorted keys, no white space, no key twice (RFC.md §3.3)."""
    try:
        found = json.loads(text)
        if isinstance(found, dict) and canonical_json(found) == text:
            return found
    except (ValueError, RecursionError):
        pass
    raise Refused(where, "it is not canonical JSON")


def json_events(bundle: Bundle, name: str) -> Iterator[Event]:
    """The events of a part in NDJSON: members in the order of ``FIELDS``, the bytes of the event last."""
    for line in bundle.lines(name):
        head, _, entry = line.partition(b',"event":')
        row = json.loads(head + b"}")
        again = json.dumps(row, separators=(",", ":")).encode()[:-1] + b',"event":' + entry
        if [*row, "event"] != FIELDS.split() or entry[-1:] != b"}" or again != line:
            raise ValueError
        leaf, event_id, at, _, _, schema, _, _, hashed = row.values()
        yield Event(leaf, event_id, at, schema, bytes.fromhex(hashed), entry[:-1])


def avro_events(bundle: Bundle, name: str) -> Iterator[Event]:
    """The events of a part that is an Avro container file of ``audit.archive.v1.Leaf``, codec deflate."""
    file, header = BytesIO(bundle.read(name)), {}
    magic = file.read(4)
    while entries := avro_long(file):
        for _ in range(entries):
            key = file.read(avro_long(file))
            header[key] = file.read(avro_long(file))
    sync, schema = file.read(16), json.loads(header[b"avro.schema"])
    if magic != b"Obj\x01" or [part["name"] for part in schema["fields"]] != FIELDS.split():
        raise ValueError
    while file.tell() < len(file.getbuffer()):
        count = avro_long(file)
        block = BytesIO(inflated(name, file.read(avro_long(file)), -15))
        for _ in range(count):
            leaf, event_id, at = avro_long(block), UUID(bytes=block.read(16)), avro_long(block)
            _, _, schema_id, _ = [avro_long(block) for _ in range(4)]
            block.read(16 if avro_long(block) else 0)  # actor_ref, behind the branch of its union
            hashed, entry = block.read(32), block.read(avro_long(block))
            yield Event(leaf, str(event_id), at, schema_id, hashed, entry)
        if file.read(16) != sync or block.read(1):
            raise ValueError


def avro_long(file: BytesIO) -> int:
    """A zigzag varint."""
    number = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)[0]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1)
    raise ValueError


def check_event(where: str, event: Event, filters: dict[str, Any], opened: dict[str, Any]) -> int:
    """Return how many values of an event are opened if all is as it must be.

    commitment = BLAKE2b-256(key = Ke, path ‖ 0x00 ‖ canonical value): Ke is of one event and one
    subject, and decrypts nothing (RFC.md §3.2). Either all values of a subject are opened or none."""
    if leaf_hash(event.entry) != event.leaf_hash:
        raise Refused(where, "its bytes are not those that were hashed")
    body = read_json(where, event.entry)
    clear, values = body["clear"], 0
    if (clear["event_id"], clear["occurred_at"]) != (event.event_id, event.occurred_at):
        raise Refused(where, "what stands beside the event is not what it says")
    names = {"tenants": clear["tenant"], "families": body["family"], "actions": clear["action"]}
    wrong = [name for name, found in names.items() if filters[name] and found not in filters[name]]
    if filters["subjects"] and not {*filters["subjects"]} & {*body["sealed"]}:
        wrong.append("subjects")
    if wrong or not (filters["from"] or 0) <= event.occurred_at < (filters["to"] or 1 << 63):
        raise Refused(where, f"the filters of the manifest do not let it in: {wrong or 'period'}")
    for subject, found in opened.items():
        event_key, sealed = from_base64(found["event_key"]), body["sealed"].get(subject, {})
        if len(event_key) != 32 or set(found["values"]) != set(sealed):
            raise Refused(where, f"what is opened of {subject} is not what it sealed")
        for path, value in found["values"].items():
            message = path.encode() + b"\x00" + canonical_json(value)
            commitment = blake2b(message, key=event_key, digest_size=32).digest()
            if b64encode(commitment).decode() != sealed[path]:
                raise Refused(where, f"the value of {path} is not the one that was sealed")
            values += 1
    return values


# ---- The bundle -----------------------------------------------------------------------------------


@dataclass
class Report:
    """What was found: everything holds if there are no ``problems``."""

    problems: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)
    values: int = 0  # opened
    schemas: set[int] = field(default_factory=set)  # that events name

    def problem(self, what: object) -> None:
        if len(self.problems) <= PROBLEMS_MAX:
            self.problems.append("more" if len(self.problems) == PROBLEMS_MAX else str(what))


def verify_bundle(file: IO[bytes], keys: Sequence[Key], exporters: Sequence[Key] = ()) -> Report:
    """Everything that can be. ``exporters``: who may sign manifests, if others than ``keys``."""
    report = Report()
    try:
        bundle = Bundle(file)
        encoded = bundle.read(MANIFEST)
        manifest = report.manifest = read_json(MANIFEST, encoded)
        if (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
            raise Refused(MANIFEST, f"it is not {FORMAT}, version {VERSION}")
        check_signature(bundle, encoded, exporters or keys, report)
        check_members(bundle, manifest, report)
        bundle.unread = {*bundle.names} - {"README.txt", MANIFEST, SIGNATURE}
        if len({log["log"] for log in manifest["logs"]}) != len(manifest["logs"]):
            raise Refused(MANIFEST, "it lists a log twice")
        for log in manifest["logs"]:
            try:
                verify_log(bundle, log, keys, report)
            except Refused as refused:
                report.problem(refused)
        listed = {
            row["id"] for row in manifest["schemas"] if bundle.read(f"schemas/{row['id']}.avsc")
        }
        if (listed, manifest["personal_data"]["values"]) != (report.schemas, report.values):
            report.problem(f"{MANIFEST}: other schemas or opened values than it claims")
        if bundle.unread and not report.problems:  # what nothing calls for was not looked at
            report.problem(f"bundle: no log that it lists has these: {sorted(bundle.unread)}")
    except Refused as refused:
        report.problem(refused)
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
        report.problem("bundle: something in it is not of the form of its version")
    return report


def check_signature(bundle: Bundle, encoded: bytes, keys: Sequence[Key], report: Report) -> None:
    """The signature is of this manifest."""
    try:
        text, _ = verify_note(SIGNATURE, bundle.read(SIGNATURE), keys)
        digest = b64encode(sha256(encoded).digest()).decode()
        if text != f"{report.manifest['origin']}/export/v1\n{digest}\n":
            raise Refused(SIGNATURE, f"it is not of this {MANIFEST}")
    except Refused as refused:
        report.problem(refused)


def check_members(bundle: Bundle, manifest: dict[str, Any], report: Report) -> None:
    """The members are those that the manifest lists, byte for byte, in its order."""
    content = "".join(f"{row['sha256']}  {row['name']}\n" for row in manifest["members"])
    for row in manifest["members"]:
        try:
            found = bundle.read(row["name"])
            if (len(found), sha256(found).hexdigest()) != (row["bytes"], row["sha256"]):
                raise Refused(row["name"], "it is not the member that the manifest lists")
        except Refused as refused:
            report.problem(refused)
    if sha256(content.encode()).hexdigest() != manifest["content_sha256"]:
        report.problem(f"{MANIFEST}: content_sha256 is not of its members")
    names = [*[row["name"] for row in manifest["members"]], MANIFEST, SIGNATURE]
    if bundle.names != names:
        beyond = sorted({*bundle.names} - {*names}) or "their order"
        report.problem(f"bundle: members are not those of the manifest: {beyond}")


def verify_log(bundle: Bundle, log: dict[str, Any], keys: Sequence[Key], report: Report) -> None:
    """One log: its checkpoints, that they are of one history, and its events under the newest."""
    manifest, name = report.manifest, log["log"]
    parts = [part for part in bundle.names if part.startswith(f"events/{name}/")]
    if not log["events"] and not parts:
        report.statements.append(f"{name}: no event (that there was none is not proven)")
        return
    checkpoints, signers = [], set[Key]()
    for size in log["checkpoints"]:
        where = f"checkpoints/{name}/{size:019d}"
        text, signers = verify_note(where, bundle.read(where), keys)
        checkpoints.append(parse_checkpoint(where, text))
        if checkpoints[-1][:2] != (f"{manifest['origin']}/{name}", size):
            raise Refused(where, "it is of another log or size")
    newest = checkpoints[-1]
    check_witnesses(where, keys, signers)
    where = f"consistency/{name}.json"
    proofs = read_json(where, bundle.read(where))["proofs"]
    for (old, new), encoded in zip(pairwise(checkpoints), proofs, strict=True):
        proof = hashes(where, encoded)
        roots = both_roots(old, 0, new.size, proof) if 0 < old.size < new.size else ()
        no_more(where, proof)
        if roots != (old.root, new.root):
            raise Refused(where, f"{new.size} leaves do not begin with those {old.size}")

    where, places = f"proofs/{name}", list[int]()
    packed = (bundle.read(part) for part in bundle.names if part.startswith(f"{where}/"))
    proof = (some[at : at + 32] for some in packed for at in range(0, len(some), 32))
    leaves = Leaves(checked_events(bundle, parts, newest.size, places, report))
    root = root_of_some(leaves, 0, newest.size, proof)
    no_more(where, proof)
    if root != newest.root or not places:
        raise Refused(where, f"the events do not lead to the root of {newest.size} leaves")
    count, first, last = len(places), places[0], places[-1]
    complete = count == last - first + 1
    claims = [log[claim] for claim in ("events", "first_leaf", "last_leaf", "complete")]
    if claims != [count, first, last, complete]:
        raise Refused(MANIFEST, f"it claims other events of {name}")
    said = f"{count} events, complete" if complete else f"{count} events, others may be left out,"
    report.statements.append(f"{name}: {said} from leaf {first} to {last} of {newest.size}")


def checked_events(
    bundle: Bundle, parts: Sequence[str], size: int, places: list[int], report: Report
) -> Iterator[tuple[int, bytes]]:
    """The leaves of all parts in order, each looked at; a problem of one hides no other."""
    events = {"ndjson": json_events, "avro": avro_events}[report.manifest["events_format"]]
    for part in parts:
        name = part.replace("events/", "opened/", 1).replace(".avro", ".ndjson.gz")
        rows = (
            [read_json(name, line) for line in bundle.lines(name)] if name in bundle.names else []
        )
        opened = {row["leaf_index"]: row["subjects"] for row in rows}
        try:
            for event in events(bundle, part):
                leaf = event.leaf_index
                where = f"{part} leaf {leaf}"
                if not (places[-1] if places else -1) < leaf < size:
                    raise Refused(where, "it is out of order, or beyond the checkpoint")
                places.append(leaf)
                report.schemas.add(event.schema_id)
                try:
                    filters = report.manifest["filters"]
                    report.values += check_event(where, event, filters, opened.pop(leaf, {}))
                except Refused as refused:
                    report.problem(refused)
                yield leaf, leaf_hash(event.entry)
        except (LookupError, TypeError, ValueError):
            raise Refused(part, "it is not a file of events") from None
        if opened:
            report.problem(f"{name}: it opens values of leaves that are not in {part}")


# ---- One event's proof (C2SP tlog-proof), and the call --------------------------------------------


def verify_proof(proof: bytes, entry: bytes | None, keys: Sequence[Key]) -> Report:
    """That an event is in a log; its canonical bytes are ``entry``, or else in the proof's extra line."""
    report = Report()
    try:
        head, _, note = proof.partition(b"\n\n")
        lines = head.decode("ascii", "replace").split("\n")[1:]
        if lines and lines[0].startswith("extra "):
            extra = from_base64(lines.pop(0).removeprefix("extra "))
            if entry not in (None, extra):
                raise Refused("proof", "the event that you named is not the one in it")
            entry = extra
        index = lines.pop(0).removeprefix("index ") if lines else ""
        text, signers = verify_note("checkpoint", note, keys)
        check_witnesses("checkpoint", keys, signers)
        checkpoint = parse_checkpoint("checkpoint", text)
        if not decimal(index) or int(index) >= checkpoint.size:
            raise Refused("proof", "it has no index below the size of its checkpoint")
        if entry is None:
            raise Refused("proof", "name the file with the event's canonical bytes: --event")
        path = hashes("proof", lines)
        root = root_of_one(leaf_hash(entry), int(index), 0, checkpoint.size, path)
        no_more("proof", path)
        if root != checkpoint.root:
            raise Refused("proof", "the event is not the leaf that it is of")
        report.statements.append(f"leaf {index} of {checkpoint.origin}, {checkpoint.size} leaves")
    except Refused as refused:
        report.problem(refused)
    return report


def verify_file(path: Path, keys: Sequence[Key], exporters: Sequence[Key], event: Any) -> Report:
    """A bundle or a proof, as the file's beginning tells; ``event``: the path of a proof's event, or None."""
    with path.open("rb") as file:
        if file.read(23) == b"c2sp.org/tlog-proof@v1\n":
            file.seek(0)
            return verify_proof(file.read(MEMBER_MAX), event.read_bytes() if event else None, keys)
        return verify_bundle(file, keys, exporters)


def read_keys(texts: Sequence[str], files: Sequence[Path]) -> list[Key]:
    """Keys as they were given, and those of files: one a line, ``#`` begins a comment."""
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    stripped = [text.partition("#")[0].strip() for text in [*texts, *lines]]
    return [parse_key(text) for text in stripped if text]


def main() -> int:
    """0: everything holds; 1: something does not; 2: the call is no good."""
    parser = argparse.ArgumentParser(description="Verify a bundle or a proof, offline.")
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--key", action="append", default=[], help="a key that you trust; repeat it"
    )
    parser.add_argument("--key-file", action="append", default=[], type=Path, help="one a line")
    parser.add_argument(
        "--exporter-key", action="append", default=[], help="of manifests, if another"
    )
    parser.add_argument("--event", type=Path, help="of a proof: the event's canonical bytes")
    asked = parser.parse_args()
    try:
        keys, exporters = read_keys(asked.key, asked.key_file), read_keys(asked.exporter_key, ())
        if not keys:
            raise Refused("key", "name one that you trust: --key or --key-file")
        report = verify_file(asked.file, keys, exporters, asked.event)
    except (OSError, Refused) as error:
        parser.error(str(error))
    for line in [*report.statements, *(f"WRONG {problem}" for problem in report.problems)]:
        print(ascii(line)[1:-1])  # names may hold what a terminal acts on
    print("NOT VERIFIED" if report.problems else "verified")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
