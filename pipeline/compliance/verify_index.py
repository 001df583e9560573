"""Comparing documents of the search index with those that catch-up would build from the ledger.

With the subjects' keys every field is compared, and every opened value with its commitment; without,
what says where the event is and what it hashes to, and the fields that follow from clear values alone.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import orjson

from pipeline.compliance.absence import Absence, Part, Problem
from pipeline.compliance.findings import Finding, Kind, Store
from pipeline.compliance.trail_reader import BlobRow, EventRow
from pipeline.compliance.verify_leaves import Where
from pipeline.domain.escrow import NOBODY
from pipeline.domain.merkle import HASH_BYTES
from pipeline.domain.records import SealedBlob, SealedEvent
from pipeline.keys.seal import commitment, committed_member, open_blob
from pipeline.keys.subjects import SubjectKey
from sinks.archive_facts import PLACE, SERVER
from sinks.documents import Documents, month_text, uuid_text
from sinks.index_reader import Document
from sinks.rows import POSTGRES_EPOCH_US

STUB: Final = "audit.index_refused"
# Of a document that is compared without keys: nothing in these follows from a sealed value.
_CLEAR_FIELDS: Final = frozenset(
    {
        "@timestamp", "audit.actor.ref", "audit.actor.type", "audit.family", "audit.late",
        "audit.leaf_index", "audit.log", "audit.offset", "audit.schema_id", "audit.subject_ref",
        "event.action", "event.created", "event.hash", "event.id", "event.ingested", "event.outcome",
        "event.severity", "organization.id",
    }
)  # fmt: skip

KeysOf = Callable[[Iterable[UUID]], Awaitable[Mapping[UUID, SubjectKey]]]


class DocumentCheck:
    """Builds what should be there. ``sources``: whole documents are compared, not only their ids and
    hashes; ``keys_of`` is None where the subjects' keys cannot be had.
    """

    def __init__(
        self, *, prefix: str, late_after_s: int, sources: bool, keys_of: KeysOf | None
    ) -> None:
        self.sources = sources
        self._prefix = prefix
        self._documents = Documents(late_after_s=late_after_s)
        self._keys_of = keys_of
        self.stubs = 0

    @property
    def whole(self) -> bool:
        """Whether every field is compared."""
        return self.sources and self._keys_of is not None

    async def events(
        self, where: Where, rows: Sequence[EventRow], hashes: bytes, blobs: Sequence[BlobRow]
    ) -> tuple[list[SealedEvent], list[Problem]]:
        """The events of rows as catch-up has them, opened where there are keys; ``hashes``: theirs, one
        after the other.
        """
        by_leaf: dict[int, list[SealedBlob]] = {}
        for blob in blobs:
            sealed = SealedBlob(blob.subject_ref, blob.nonce, blob.ciphertext)
            by_leaf.setdefault(blob.leaf, []).append(sealed)
        keys: Mapping[UUID, SubjectKey] = {}
        if self.whole and self._keys_of is not None:
            refs = {UUID(bytes=blob.subject_ref) for blob in blobs}
            keys = await self._keys_of(refs) if refs else {}
        events, problems = [], list[Problem]()
        for number, row in enumerate(rows):
            event = _event(row, by_leaf.get(row.leaf, []))
            if event is None:
                continue  # said already: it is no sealed event
            event.leaf_hash = hashes[number * HASH_BYTES : (number + 1) * HASH_BYTES]
            if self.whole:
                problems += self._open(where, row, event, keys)
            events.append(event)
        return events, problems

    def compare(
        self,
        where: Where,
        expected: Mapping[int, SealedEvent],
        late: Mapping[int, bool],
        found: Sequence[Document],
        *,
        durable: int,
    ) -> list[Problem]:
        """Documents beside the leaves of a range; ``durable``: all before it must be there."""
        by_leaf: dict[int, list[Document]] = {}
        for document in found:
            by_leaf.setdefault(_leaf(document), []).append(document)
        problems: list[Problem] = []
        for leaf, event in expected.items():
            event_id = uuid_text(event.event_id)
            here = by_leaf.pop(leaf, [])
            right = [document for document in here if document.id == event_id]
            if not right and leaf < durable:
                problems.append(
                    Absence(
                        Part.DOCUMENT,
                        Store.INDEX,
                        where.log,
                        leaf,
                        "the document",
                        event_id=event_id,
                        place=event_id,
                        occurred_at_us=event.occurred_at_us,
                    )
                )
            name = f"{self._prefix}-{month_text(event.occurred_at_us)}"
            right.sort(key=lambda document: document.index_name != name)
            for document in right[:1]:
                problems += self._differs(where, leaf, event, late[leaf], document, name)
            for document in [*right[1:], *(one for one in here if one.id != event_id)]:
                problems.append(_added(where.log, leaf, document))
        for leaf, documents in by_leaf.items():
            if where.first <= leaf < where.end:
                continue  # the ledger has no event of it, which is said already
            problems += [_added(where.log, leaf, document) for document in documents]
        return problems

    def _open(
        self, where: Where, row: EventRow, event: SealedEvent, keys: Mapping[UUID, SubjectKey]
    ) -> list[Problem]:
        problems: list[Problem] = []
        event_id = uuid_text(event.event_id)
        opened: dict[str, Any] = {}
        for blob in event.blobs:
            key = keys.get(UUID(bytes=blob.subject_ref))
            if key is None:
                if blob.subject_ref != NOBODY:
                    what = f"the key of subject {blob.subject_ref.hex()}"
                    problems.append(_absent(Part.KEY, where, row, event, blob.subject_ref, what))
                continue
            try:
                values = open_blob(key, event.event_id, blob)
            except ValueError:
                what = f"the blob of subject {blob.subject_ref.hex()} does not open under its key"
                problems.append(
                    Finding(Kind.CHANGED, Store.LEDGER, where.log, what, row.leaf, event_id)
                )
                continue
            wrong, gone = _compared(key, event, row.canonical, values)
            for path in gone:
                what = f"the value {path} of subject {blob.subject_ref.hex()}"
                problems.append(
                    _absent(Part.VALUE, where, row, event, blob.subject_ref, what, path)
                )
            if wrong:
                what = f"values that are not what was committed to: {', '.join(sorted(wrong))}"
                problems.append(
                    Finding(Kind.CHANGED, Store.LEDGER, where.log, what, row.leaf, event_id)
                )
            opened.update(values)
        event.opened = opened
        return problems

    def _differs(
        self,
        where: Where,
        leaf: int,
        event: SealedEvent,
        late: bool,  # noqa: FBT001 - a column's value
        document: Document,
        name: str,
    ) -> list[Finding]:
        wrong = [] if document.index_name == name else ["the index it is in"]
        source = document.source
        if self.sources:
            refused = source.get(STUB)
            if isinstance(refused, str):
                self.stubs += 1
                built = orjson.loads(self._documents.stub(event, where.log, leaf, refused=refused))
            else:
                built = orjson.loads(self._documents.document(event, where.log, leaf))
            built["audit.late"] = late
            if not wrong and built == source:
                return []
            names = built.keys() | source.keys()
            if not self.whole:
                names = (names & _CLEAR_FIELDS) | (built.keys() & {STUB})
            wrong += sorted(field for field in names if built.get(field) != source.get(field))
        elif source.get("event.hash") != event.leaf_hash.hex():
            wrong.append("event.hash")
        if not wrong:
            return []
        what = f"differs from what the ledger gives: {', '.join(wrong)}"
        event_id = uuid_text(event.event_id)
        place = f"{document.index_name}/{document.id}"
        return [Finding(Kind.CHANGED, Store.INDEX, where.log, what, leaf, event_id, place)]


def _event(row: EventRow, blobs: list[SealedBlob]) -> SealedEvent | None:
    try:
        sealed = orjson.loads(row.canonical)
        clear, family = sealed["clear"], sealed["family"]
    except (ValueError, KeyError, TypeError):
        return None
    _leaf_index, event_id, occurred_at = PLACE.unpack(row.place)
    stored, broker, schema_id, offset, has_actor, actor_ref = SERVER.unpack(row.server)
    return SealedEvent(
        event_id=event_id,
        family=family,
        occurred_at_us=occurred_at + POSTGRES_EPOCH_US,
        offset=offset,
        broker_timestamp_ms=(broker + POSTGRES_EPOCH_US) // 1000,
        schema_id=schema_id,
        clear=clear,
        opened={},
        canonical=row.canonical,
        leaf_hash=b"",
        blobs=blobs,
        actor_ref=actor_ref if has_actor else None,
        stored_at_us=stored + POSTGRES_EPOCH_US,
    )


def _absent(
    part: Part,
    where: Where,
    row: EventRow,
    event: SealedEvent,
    subject: bytes,
    what: str,
    path: str | None = None,
) -> Absence:
    return Absence(
        part,
        Store.LEDGER,
        where.log,
        row.leaf,
        what,
        event_id=uuid_text(event.event_id),
        occurred_at_us=event.occurred_at_us,
        subject=subject,
        path=path,
    )


def _compared(
    key: SubjectKey, event: SealedEvent, canonical: bytes, values: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Paths of opened values that the event does not commit to, and of those that it does commit to and
    that are not there. One look where it commits to just these.
    """
    if committed_member(key, event.event_id, values) in canonical:
        return [], []
    committed = orjson.loads(canonical)["sealed"].get(uuid_text(key.ref), {})
    wrong = [
        path
        for path, value in values.items()
        if committed.get(path) != b64encode(commitment(key, event.event_id, path, value)).decode()
    ]
    return wrong, sorted(committed.keys() - values.keys())


def _leaf(document: Document) -> int:
    leaf = document.source.get("audit.leaf_index")
    return leaf if isinstance(leaf, int) else -1


def _added(log: str, leaf: int, document: Document) -> Finding:
    what = "a document that no leaf calls for"
    place = f"{document.index_name}/{document.id}"
    return Finding(Kind.ADDED, Store.INDEX, log, what, leaf, document.id, place)
