"""Requests of erasure in PostgreSQL, as ``audit_redactor``: what was asked for, and how far it is.

Knows people by keyed hashes and random references, reads no key, and destroys keys through functions that
look for an approved request themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import errors
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pipeline.db.connection import Connection
from pipeline.domain.erasure import LeafPlace, State, Step
from pipeline.domain.errors import AuditTrailError, ConfigurationError
from sinks.rewrite_numbers import next_number
from sinks.subject_store import Position

_COLUMNS = """request_id, state, tenant, id_types, subject_hashes, raw_key_hashes, reason, requested_by,
requested_at, four_eyes, approved_by, approved_at, erased_at, epoch, subject_refs, steps, pending,
inaccessible_since, gone_by, completed_at, certificate"""
_CREATE = """
INSERT INTO redaction_request (request_id, kind, tenant, id_types, subject_hashes, raw_key_hashes, reason,
    requested_by, four_eyes)
VALUES (%s, 'erasure', %s, %s, %s, %s, %s, %s, %s)
"""
_ONE = f"SELECT {_COLUMNS} FROM redaction_request WHERE request_id = %s"  # noqa: S608 - constants
_ALL = f"SELECT {_COLUMNS} FROM redaction_request ORDER BY requested_at, request_id LIMIT %s"  # noqa: S608
_APPROVE = "SELECT approve_redaction(%s, %s)"
_MOVE = "UPDATE redaction_request SET state = %s WHERE request_id = %s AND state = ANY (%s)"
# The time that was noted first stays: a step that is done again was done then.
_NOTE = """
UPDATE redaction_request
SET steps = steps || jsonb_build_object(%s::text,
        jsonb_build_object('at', to_jsonb(clock_timestamp())) || %s), pending = ''
WHERE request_id = %s
"""
_PENDING = "UPDATE redaction_request SET pending = %s WHERE request_id = %s"
_ERASE = "SELECT erase_subjects(%s)"
_SUBJECTS = """
SELECT subject_hash, generation, subject_ref, id_type, escrow, created_at, erased_at
FROM find_subjects(%s)
"""
_HOLDS = "SELECT DISTINCT hold_id FROM holds_on_subjects(%s::bytea[]) ORDER BY hold_id"
_BEHIND = """
SELECT count(*) FROM worker_lease WHERE expires_at > clock_timestamp() AND epoch < %s
"""
_HEADS = "SELECT log_id, name, topic, partition, size, next_offset FROM heads_after_erasure()"
_NEXT_OFFSETS = "SELECT topic, partition, max(next_offset) FROM log_heads GROUP BY topic, partition"
_POSITIONS = "SELECT follower, log_id, next_leaf FROM follower_position WHERE follower = ANY (%s)"
_EVENT_LEAF = """
SELECT name, leaf_index FROM leaves JOIN log_heads USING (log_id) WHERE event_id = %s
"""
_KEEP_LEAVES = """
INSERT INTO redaction_leaf (request_id, log_id, leaf_index)
SELECT DISTINCT %s::uuid, log_id, leaf_index FROM audit_blobs WHERE subject_ref = ANY (%s)
ON CONFLICT DO NOTHING
"""
_KEPT = """
SELECT log_id, leaf_index FROM redaction_leaf WHERE request_id = %s ORDER BY log_id, leaf_index
"""
_KEPT_HASHES = """
SELECT leaf_hash FROM redaction_leaf JOIN leaves USING (log_id, leaf_index)
    JOIN log_heads USING (log_id)
WHERE request_id = %s ORDER BY name COLLATE "C", leaf_index
"""
_HASHES_OF_REFS = """
SELECT leaf_hash FROM (
    SELECT DISTINCT log_id, leaf_index FROM audit_blobs WHERE subject_ref = ANY (%s)
) AS affected JOIN leaves USING (log_id, leaf_index) JOIN log_heads USING (log_id)
ORDER BY name COLLATE "C", leaf_index
"""
_BY_TOPIC = """
SELECT topic, count(DISTINCT (log_id, leaf_index)), count(*)
FROM audit_blobs JOIN log_heads USING (log_id) WHERE subject_ref = ANY (%s)
GROUP BY topic ORDER BY topic
"""
_LETTERS_OF_KEYS = "SELECT count(*) FROM dead_letter_key WHERE raw_key_hash = ANY (%s)"
_DESTROY = "UPDATE dead_letter_key SET wrapped_key = NULL, raw_key_hash = NULL, destroyed_by = %s"
_DESTROY_LETTERS_OF_KEYS = f"{_DESTROY} WHERE raw_key_hash = ANY (%s)"
_DESTROY_LETTERS = f"""
{_DESTROY} FROM unnest(%s::text[], %s::integer[], %s::bigint[], %s::integer[])
    AS wanted (topic, partition, "offset", epoch)
WHERE source_topic = wanted.topic AND source_partition = wanted.partition
    AND source_offset = wanted."offset" AND source_epoch = wanted.epoch AND destroyed_by IS NULL
"""
_DESTROYED_LETTERS = "SELECT count(*) FROM dead_letter_key WHERE destroyed_by = %s"
# Who else stands in the events of a person: a candidate for another identifier of theirs.
_BESIDE = """
SELECT other.subject_ref, count(*) AS events, (
    SELECT count(*) FROM audit_blobs AS every WHERE every.subject_ref = other.subject_ref)
FROM audit_blobs AS mine JOIN audit_blobs AS other USING (log_id, leaf_index, occurred_at)
WHERE mine.subject_ref = ANY (%s) AND NOT other.subject_ref = ANY (%s)
GROUP BY other.subject_ref ORDER BY events DESC, other.subject_ref LIMIT %s
"""
_TYPES = "SELECT subject_ref, id_type FROM ref_types(%s)"
_INACCESSIBLE = """
UPDATE redaction_request SET state = 'inaccessible', inaccessible_since = %s, gone_by = %s,
    certificate = %s, pending = '' WHERE request_id = %s
"""
_COMPLETE = """
UPDATE redaction_request SET state = 'complete', completed_at = clock_timestamp(), certificate = %s,
    pending = '' WHERE request_id = %s
"""
_NOW = "SELECT clock_timestamp()"
_REAPPLY = "SELECT reapply_erasure(%s, %s, %s, %s, %s, %s, %s)"


@dataclass(frozen=True, slots=True)
class Request:
    """A row of ``redaction_request``; ``steps`` maps each step that is done to its facts."""

    request_id: UUID
    state: str
    tenant: str
    id_types: list[str]
    subject_hashes: list[bytes]
    raw_key_hashes: list[bytes]
    reason: str
    requested_by: str
    requested_at: datetime
    four_eyes: bool
    approved_by: str | None
    approved_at: datetime | None
    erased_at: datetime | None
    epoch: int | None
    subject_refs: list[UUID]
    steps: dict[str, dict[str, Any]]
    pending: str
    inaccessible_since: datetime | None
    gone_by: datetime | None
    completed_at: datetime | None
    certificate: str | None


@dataclass(frozen=True, slots=True)
class SubjectRow:
    """One generation of one identifier, without its key."""

    subject_hash: bytes
    generation: int
    subject_ref: UUID
    id_type: str
    escrow: str | None
    created_at: datetime
    erased_at: datetime | None


@dataclass(frozen=True, slots=True)
class Head:
    """A log as it stood."""

    log_id: int
    name: str
    topic: str
    partition: int
    size: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class Beside:
    """A subject that stands in ``together`` events of the person, of ``events`` in all."""

    subject_ref: UUID
    id_type: str
    together: int
    events: int


class ErasureStore:
    """The redactor's statements, over one connection. Every call may raise ``Unavailable`` and may be
    made again.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._connection = Connection(url, name="erasure", timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def next_rewrite(self) -> int:
        """See ``sinks.rewrite_numbers``."""
        return await next_number(self._connection)

    async def create(
        self,
        request_id: UUID,
        *,
        tenant: str,
        id_types: Sequence[str],
        subject_hashes: Sequence[bytes],
        raw_key_hashes: Sequence[bytes],
        reason: str,
        requested_by: str,
        four_eyes: bool,
    ) -> None:
        """Note a request; durable on return."""
        async with self._connection.session() as connection:
            await connection.execute(
                _CREATE,
                [
                    request_id,
                    tenant,
                    list(id_types),
                    list(subject_hashes),
                    list(raw_key_hashes),
                    reason,
                    requested_by,
                    four_eyes,
                ],
            )

    async def get(self, request_id: UUID) -> Request:
        """The request as it is now. Raises ``ConfigurationError``: there is none."""
        async with self._connection.session() as connection:
            cursor = connection.cursor(row_factory=class_row(Request))
            row = await (await cursor.execute(_ONE, [request_id])).fetchone()
        if row is None:
            raise ConfigurationError(f"no request {request_id}; see: audit-trail erase list")
        return row

    async def all(self, at_most: int) -> list[Request]:
        """Every request, the oldest first."""
        async with self._connection.session() as connection:
            cursor = connection.cursor(row_factory=class_row(Request))
            return await (await cursor.execute(_ALL, [at_most])).fetchall()

    async def approve(self, request_id: UUID, operator: str) -> None:
        """Allow a request; one that is allowed already stays as it is.

        Raises:
            AuditTrailError: Four eyes are wanted, and these are the two that asked.
        """
        try:
            async with self._connection.session(errors.CheckViolation) as connection:
                await connection.execute(_APPROVE, [request_id, operator])
        except errors.CheckViolation:
            raise AuditTrailError(
                "whoever asked for an erasure cannot approve it: another operator must"
                " (AUDIT_OPERATOR says who you are)"
            ) from None

    async def move(self, request_id: UUID, to: State, *, of: Sequence[State]) -> bool:
        """Change the state, if it is one of these."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_MOVE, [to, request_id, list(of)])
            return cursor.rowcount == 1

    async def note(self, request_id: UUID, step: Step | str, facts: Mapping[str, Any]) -> None:
        """The step is done; durable on return."""
        async with self._connection.session() as connection:
            await connection.execute(_NOTE, [str(step), Jsonb(dict(facts)), request_id])

    async def pend(self, request_id: UUID, what: str) -> None:
        """Say what the request waits for."""
        async with self._connection.session() as connection:
            await connection.execute(_PENDING, [what, request_id])

    async def erase(self, request_id: UUID) -> int:
        """Destroy the keys; the epoch. Durable on return; again: the same epoch, nothing more.

        Raises:
            ConfigurationError: The request is not approved and running.
        """
        async with self._connection.session() as connection:
            cursor = await connection.execute(_ERASE, [request_id])
            (epoch,) = await cursor.fetchone() or (0,)
            return int(epoch)

    async def subjects(self, hashes: Sequence[bytes]) -> list[SubjectRow]:
        """All generations of some identifiers."""
        async with self._connection.session() as connection:
            cursor = connection.cursor(row_factory=class_row(SubjectRow))
            return await (await cursor.execute(_SUBJECTS, [list(hashes)])).fetchall()

    async def holds(self, hashes: Sequence[bytes]) -> list[UUID]:
        """The legal holds that keep these persons from being erased."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_HOLDS, [list(hashes)])
            return [hold for (hold,) in await cursor.fetchall()]

    async def workers_behind(self, epoch: int) -> int:
        """Workers whose lease holds and that have not applied this erasure."""
        return int((await self._row(_BEHIND, [epoch]))[0])

    async def heads_after_erasure(self) -> list[Head]:
        """Every head, once no ledger transaction of an earlier epoch is under way."""
        async with self._connection.session() as connection:
            cursor = connection.cursor(row_factory=class_row(Head))
            return await (await cursor.execute(_HEADS)).fetchall()

    async def next_offsets(self) -> dict[tuple[str, int], int]:
        """How far the ledger is on each raw partition."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_NEXT_OFFSETS)
            return {(topic, part): offset for topic, part, offset in await cursor.fetchall()}

    async def positions(self, followers: Sequence[str]) -> dict[tuple[str, int], int]:
        """(follower, log id) → next leaf."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_POSITIONS, [list(followers)])
            return {(name, log_id): leaf for name, log_id, leaf in await cursor.fetchall()}

    async def leaf_of_event(self, event_id: UUID) -> LeafPlace | None:
        """Where the ledger has an event; None: not yet."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_EVENT_LEAF, [event_id])
            row = await cursor.fetchone()
        return None if row is None else LeafPlace(*row)

    async def hashes_of(self, refs: Sequence[UUID]) -> list[bytes]:
        """Hashes of the leaves that hold values of these subjects, by log name and index."""
        return await self._column(_HASHES_OF_REFS, [list(refs)])

    async def keep_leaves(self, request_id: UUID, refs: Sequence[UUID]) -> list[bytes]:
        """Note which leaves the request affects, durably; their hashes, by log name and index."""
        async with self._connection.session() as connection:
            await connection.execute(_KEEP_LEAVES, [request_id, list(refs)])
        return await self._column(_KEPT_HASHES, [request_id])

    async def kept_leaves(self, request_id: UUID) -> dict[int, list[int]]:
        """The leaves that the request affects: log id → indexes, ascending."""
        found: dict[int, list[int]] = {}
        async with self._connection.session() as connection:
            cursor = await connection.execute(_KEPT, [request_id])
            for log_id, leaf_index in await cursor.fetchall():
                found.setdefault(log_id, []).append(leaf_index)
        return found

    async def counts(self, refs: Sequence[UUID]) -> list[tuple[str, int, int]]:
        """(topic, events, blobs) of the subjects."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_BY_TOPIC, [list(refs)])
            return [(topic, events, blobs) for topic, events, blobs in await cursor.fetchall()]

    async def letters_of(self, raw_key_hashes: Sequence[bytes]) -> int:
        """Dead letters whose record had one of these keys."""
        return int((await self._row(_LETTERS_OF_KEYS, [list(raw_key_hashes)]))[0])

    async def destroy_letters(
        self, request_id: UUID, raw_key_hashes: Sequence[bytes], positions: Sequence[Position]
    ) -> int:
        """Destroy the keys of dead letters, by raw key and by position; how many this request has
        destroyed, at this call and before.
        """
        columns = [list(column) for column in zip(*positions, strict=True)] or [[], [], [], []]
        async with self._connection.session() as connection:
            await connection.execute(_DESTROY_LETTERS_OF_KEYS, [request_id, list(raw_key_hashes)])
            await connection.execute(_DESTROY_LETTERS, [request_id, *columns])
        return int((await self._row(_DESTROYED_LETTERS, [request_id]))[0])

    async def beside(self, refs: Sequence[UUID], at_most: int) -> list[Beside]:
        """Subjects that stand in the same events, the most frequent first."""
        async with self._connection.session() as connection:
            wanted = list(refs)
            cursor = await connection.execute(_BESIDE, [wanted, wanted, at_most])
            found = await cursor.fetchall()
            cursor = await connection.execute(_TYPES, [[row[0] for row in found]])
            types = dict(await cursor.fetchall())
        return [Beside(ref, types.get(ref, ""), together, all_) for ref, together, all_ in found]

    async def now(self) -> datetime:
        """The database's clock."""
        moment: datetime = (await self._row(_NOW, []))[0]
        return moment

    async def certify(
        self, request_id: UUID, *, since: datetime, gone_by: datetime, certificate: str
    ) -> None:
        """No interface gives the person's data from ``since`` on."""
        async with self._connection.session() as connection:
            await connection.execute(_INACCESSIBLE, [since, gone_by, certificate, request_id])

    async def complete(self, request_id: UUID, certificate: str) -> None:
        """The disks do not hold it either."""
        async with self._connection.session() as connection:
            await connection.execute(_COMPLETE, [certificate, request_id])

    async def reapply(
        self,
        request_id: UUID,
        *,
        tenant: str,
        id_types: Sequence[str],
        subject_hashes: Sequence[bytes],
        subject_refs: Sequence[UUID],
        raw_key_hashes: Sequence[bytes],
        erased_at: datetime,
    ) -> bool:
        """Carry out again what a restored database lost; False: it knows of it. ``subject_refs``: those of
        the person that it may not know any more; one that is somebody else's there is passed over.
        """
        values = [
            *(request_id, tenant, list(id_types), list(subject_hashes)),
            *(list(subject_refs), list(raw_key_hashes), erased_at),
        ]
        return bool((await self._row(_REAPPLY, values))[0])

    async def _row(self, statement: str, values: Sequence[object]) -> tuple[Any, ...]:
        async with self._connection.session() as connection:
            cursor = await connection.execute(statement, values)
            return await cursor.fetchone() or (None,)

    async def _column(self, statement: str, values: Sequence[object]) -> list[bytes]:
        async with self._connection.session() as connection:
            cursor = await connection.cursor(binary=True).execute(statement, values)
            return [value for (value,) in await cursor.fetchall()]
