"""From record batch to prepared batch: decode, judge, seal (DESIGN §2, steps 2, 3 and 5).

One pass; only events of subjects whose keys are not in memory wait until all of those are found at
once. Nothing is durable on return.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from pipeline.codec import judge
from pipeline.codec.compiler import Flat, Groups
from pipeline.codec.decoders import Decoders
from pipeline.codec.judge import Horizon
from pipeline.codec.limits import Limits
from pipeline.codec.policy import ACTOR, SUBJECT, TARGET, UNATTRIBUTED
from pipeline.codec.wire import HEADER_BYTES, schema_id
from pipeline.domain.errors import InvalidRecord, Reason
from pipeline.domain.logs import family_of
from pipeline.domain.records import (
    DeadLetter,
    LogHead,
    PreparedBatch,
    Record,
    RecordBatch,
    SealedEvent,
)
from pipeline.keys.seal import seal
from pipeline.keys.subjects import UNATTRIBUTED as UNATTRIBUTED_TYPE
from pipeline.keys.subjects import Subject, SubjectKey, SubjectKeys, unattributed

UNKNOWN_ID = "unknown"  # an id type: the value names nobody that the producer knows
ANONYMOUS = "anonymous"
_STEP = 200  # records after which other tasks get their turn: a few milliseconds

# A value outside of a party belongs to the first party of its kind, else to the actor.
_FIRST_PARTY = {TARGET: "targets.0", SUBJECT: "data_subjects.0"}


class _Judged(NamedTuple):
    """A record that is accepted, before its values are sealed."""

    record: Record
    schema: int
    event_id: bytes
    occurred_at_us: int
    clear: Flat
    owned: Sequence[tuple[Subject, Flat]]  # the actor's first


# Named tuples of what is at hand already: their own constructors are calls in Python.
_judged = partial(tuple.__new__, _Judged)
_subject_of = partial(tuple.__new__, Subject)


class _Going:
    """A batch on its way through: a place for each accepted event, in the order of offsets."""

    __slots__ = ("batch", "dead", "events", "family", "waiting")

    def __init__(self, batch: RecordBatch) -> None:
        self.batch = batch
        self.family = family_of(batch.topic)
        self.events: list[SealedEvent | None] = []
        self.dead: list[DeadLetter] = []
        self.waiting: list[tuple[int, _Judged]] = []  # until their subjects' keys are found

    def refuse(self, record: Record, refusal: InvalidRecord) -> None:
        topic, partition = self.batch.topic, self.batch.partition
        self.dead.append(DeadLetter(topic, partition, record, refusal.reason, refusal.detail))

    @property
    def names_unknown_tenant(self) -> bool:
        return any(one.reason is Reason.TENANT_UNKNOWN for one in self.dead)

    def done(self, head: LogHead) -> PreparedBatch:
        events = [event for event in self.events if event is not None]
        start, end = self.batch.start_offset, self.batch.end_offset
        return PreparedBatch(head.log_id, head.name, start, end, events, self.dead)


class _PartyPaths(dict[str, tuple[str, str, str]]):
    """Where a party's triple stands, by its prefix."""

    def __missing__(self, prefix: str) -> tuple[str, str, str]:
        paths = self[prefix] = (f"{prefix}.tenant", f"{prefix}.id_type", f"{prefix}.id")
        return paths


class Preparer:
    """Decodes, judges and seals record batches."""

    def __init__(
        self,
        decoders: Decoders,
        keys: SubjectKeys,
        *,
        limits: Limits,
        horizon: Horizon,
        import_key: bytes | None,
    ) -> None:
        self._decoders = decoders
        self._keys = keys
        self._limits = limits
        self._horizon = horizon
        self._import_key = import_key
        # Asks the database for new tenants (``know_tenants``), as often as it sees fit: an event of
        # a tenant that was added a moment ago is no dead letter.
        self.look_for_tenants: Callable[[], Awaitable[None]] | None = None
        self._tenants: frozenset[str] = frozenset()
        self._party_paths = _PartyPaths()

    def know_tenants(self, wrapped: Mapping[str, bytes]) -> None:
        """Take the tenants (table ``tenants``, with their wrapped keys) as they are now."""
        self._keys.know_tenants(wrapped)
        self._tenants = frozenset(wrapped)

    async def prepare(self, batches: Sequence[tuple[RecordBatch, LogHead]]) -> list[PreparedBatch]:
        """Each batch's accepted events, sealed, and its dead letters, not yet published.

        New subjects of all batches get their keys in one go, which waits for two servers.

        Raises:
            Unavailable: The registry, the database or the journal does not answer; call again.
        """
        under_way = [await self._go_through(batch) for batch, _head in batches]
        if self.look_for_tenants and any(going.names_unknown_tenant for going in under_way):
            known = self._tenants
            await self.look_for_tenants()
            if self._tenants != known:
                under_way = [await self._go_through(batch) for batch, _head in batches]
        await self._seal_waiting(under_way)
        return [going.done(head) for going, (_batch, head) in zip(under_way, batches, strict=True)]

    async def _go_through(self, batch: RecordBatch) -> _Going:
        """Decode and judge every record, and seal those whose keys are in memory."""
        going = _Going(batch)
        family = going.family
        ready = self._decoders.ready(batch.topic)
        event_bytes = self._limits.event_bytes
        keys_of = self._keys.known
        for at, record in enumerate(batch.records):
            if not at % _STEP:
                await asyncio.sleep(0)
            try:
                value = record.value
                schema = schema_id(value, event_bytes)
                decode = ready.get(schema)
                if decode is None:
                    decode = await self._decoders.decoder(batch.topic, schema)
                clear, groups = decode(value, HEADER_BYTES)  # type: ignore[arg-type]
                judged = self._judge(record, schema, clear, groups)
                keys = keys_of(judged.owned)
                if keys is None:
                    going.waiting.append((len(going.events), judged))
                    going.events.append(None)
                else:
                    going.events.append(_seal(family, judged, keys))
            except InvalidRecord as refusal:
                going.refuse(record, refusal)
            except IndexError:  # the decoder ran out of bytes
                going.refuse(record, InvalidRecord(Reason.TRUNCATED))
            except UnicodeDecodeError:
                going.refuse(record, InvalidRecord(Reason.INVALID_UTF8))
        return going

    async def _seal_waiting(self, under_way: Sequence[_Going]) -> None:
        """Find or make all the keys that are not in memory at once, and seal the events in their
        places.
        """
        wanted = {
            subject: judged.occurred_at_us
            for going in under_way
            for _place, judged in going.waiting
            for subject, _values in judged.owned
        }
        found = await self._keys.resolve(wanted) if wanted else {}
        for going in under_way:
            for at, (place, judged) in enumerate(going.waiting):
                if not at % _STEP:
                    await asyncio.sleep(0)
                keys = [found.get(subject) for subject, _values in judged.owned]
                try:
                    going.events[place] = _seal(going.family, judged, keys)
                except InvalidRecord as refusal:
                    going.refuse(judged.record, refusal)

    def _judge(self, record: Record, schema: int, clear: Flat, groups: Groups) -> _Judged:
        text = clear["event_id"]
        octets = judge.event_id(text)
        clear["event_id"] = text.lower()
        if clear["tenant"] not in self._tenants:
            raise InvalidRecord(Reason.TENANT_UNKNOWN, "tenant")
        occurred_at_us: int = clear["occurred_at"]
        imported: bool = clear["imported"]
        judge.check_time(occurred_at_us, record.timestamp * 1000, self._horizon, imported=imported)
        if imported:
            judge.check_import(record, self._import_key)
        owned = self._owners(clear, groups, occurred_at_us)
        return _judged((record, schema, octets, occurred_at_us, clear, owned))

    def _owners(
        self, clear: Flat, groups: Groups, occurred_at_us: int
    ) -> Sequence[tuple[Subject, Flat]]:
        """Each subject once, with the values that are sealed to it; the actor first."""
        values = groups[ACTOR]
        tenant = clear["actor.tenant"]
        if tenant not in self._tenants:
            raise InvalidRecord(Reason.TENANT_UNKNOWN, "actor.tenant")
        identifier = values.get("actor.id") or clear.get("actor.id")
        id_type = clear["actor.id_type"]
        if (
            not identifier
            or id_type == UNKNOWN_ID
            or clear["actor.type"] == ANONYMOUS
            or not tenant
        ):
            actor = unattributed(clear["tenant"], occurred_at_us)
        else:
            actor = _subject_of((tenant, id_type, identifier))
        if len(groups) == 1:
            return ((actor, values),) if values else ()
        owned = {actor: values}
        for prefix, more in groups.items():
            if prefix == ACTOR:
                continue
            subject = self._party(prefix, actor, clear, groups, occurred_at_us)
            if more:
                known = owned.setdefault(subject, more)
                if known is not more:
                    owned[subject] = {**known, **more}
        if not owned[actor]:
            del owned[actor]
        return tuple(owned.items())

    def _party(
        self, prefix: str, actor: Subject, clear: Flat, groups: Groups, occurred_at_us: int
    ) -> Subject:
        """The subject of a group's values other than the actor's: the party that the prefix names,
        or the tenant's unattributed key.
        """
        if prefix == UNATTRIBUTED:
            return unattributed(clear["tenant"], occurred_at_us)
        if prefix in _FIRST_PARTY:
            prefix = _FIRST_PARTY[prefix]
            if prefix not in groups:
                return actor
        tenant_path, id_type_path, id_path = self._party_paths[prefix]
        tenant = clear.get(tenant_path)
        if tenant not in self._tenants:
            raise InvalidRecord(Reason.TENANT_UNKNOWN, tenant_path)
        identifier = groups[prefix].get(id_path) or clear.get(id_path)
        id_type = clear.get(id_type_path, UNKNOWN_ID)
        if not identifier or id_type == UNKNOWN_ID or not tenant:
            return unattributed(clear["tenant"], occurred_at_us)
        return _subject_of((tenant, id_type, identifier))


def _seal(family: str, judged: _Judged, keys: Sequence[SubjectKey | None]) -> SealedEvent:
    """One accepted event, sealed; a subject without a key was erased.

    Raises:
        InvalidRecord: ``control_character``.
    """
    sealed = []
    opened: Flat = {}
    actor_ref = None
    for (subject, values), key in zip(judged.owned, keys, strict=True):
        sealed.append((key, values))
        if key is not None:
            opened = {**opened, **values} if opened else values
            if "actor.id" in values and subject.id_type != UNATTRIBUTED_TYPE:
                actor_ref = key.ref
    canonical, leaf_hash, blobs, suspicious = seal(family, judged.event_id, judged.clear, sealed)
    if suspicious:
        judge.check_characters(judged.clear, opened)
    record = judged.record
    return SealedEvent(
        event_id=judged.event_id,
        family=family,
        occurred_at_us=judged.occurred_at_us,
        offset=record.offset,
        broker_timestamp_ms=record.timestamp,
        schema_id=judged.schema,
        clear=judged.clear,
        opened=opened,
        canonical=canonical,
        leaf_hash=leaf_hash,
        blobs=blobs,
        actor_ref=actor_ref,
    )
