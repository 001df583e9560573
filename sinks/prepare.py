"""From record batch to prepared batch: decode, judge, seal (DESIGN §2, steps 2, 3 and 5).

One pass; only events of subjects whose keys are not in memory wait until all of those are found at
once. The compiled sealer, where there is one, has the first look at every record; what it leaves is
judged here. Nothing is durable on return.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

from pipeline.codec import judge
from pipeline.codec.compiler import Flat
from pipeline.codec.decoders import Decoders
from pipeline.codec.judge import Horizon
from pipeline.codec.limits import Limits
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
from pipeline.keys.subjects import Subject, SubjectKey, SubjectKeys
from sinks.compiled import CompiledSealer, Keyless
from sinks.judging import Judge, Judged

_STEP = 200  # records after which other tasks get their turn: a few milliseconds


class _Going:
    """A batch on its way through: a place for each accepted event, in the order of offsets."""

    __slots__ = ("batch", "dead", "epoch", "events", "family", "head", "keyless", "waiting")

    def __init__(self, batch: RecordBatch, head: LogHead, epoch: int | None) -> None:
        self.epoch = epoch
        self.batch = batch
        self.head = head
        self.family = family_of(batch.topic)
        self.events: list[SealedEvent | None] = []
        self.dead: list[DeadLetter] = []
        # Until their subjects' keys are found: judged here, or by the compiled sealer.
        self.waiting: list[tuple[int, Judged]] = []
        self.keyless: list[tuple[int, Record, Keyless]] = []

    def refuse(self, record: Record, refusal: InvalidRecord) -> None:
        name = self.head.name
        self.dead.append(
            DeadLetter(
                name.topic, name.partition, record, refusal.reason, refusal.detail, name.epoch
            )
        )

    @property
    def names_unknown_tenant(self) -> bool:
        return any(one.reason is Reason.TENANT_UNKNOWN for one in self.dead)

    def done(self) -> PreparedBatch:
        events = cast("list[SealedEvent]", self.events)
        if self.waiting or self.keyless:  # else there is an event at every place
            events = [event for event in events if event is not None]
        start, end = self.batch.start_offset, self.batch.end_offset
        return PreparedBatch(
            self.head.log_id, self.head.name, start, end, events, self.dead, self.epoch
        )


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
        self._judge = Judge(horizon, import_key)
        self._compiled = (
            CompiledSealer(decoders, keys.ring, limits=limits, horizon=horizon)
            if keys.ring is not None
            else None
        )
        # Raises ``Unavailable`` while the keys in memory must not be used; gives the epoch of erasures
        # that they are of.
        self.lease_epoch: Callable[[], int] | None = None
        # Asks the database for the tenants (``know_tenants``), at most once in a ``prepare``: an event
        # of a tenant that was added before the event was published is no dead letter.
        self.look_for_tenants: Callable[[], Awaitable[None]] | None = None

    def know_tenants(self, wrapped: Mapping[str, bytes]) -> None:
        """Take the tenants (table ``tenants``, with their wrapped keys) as they are now."""
        self._keys.know_tenants(wrapped)
        self._judge.tenants = frozenset(wrapped)
        if self._compiled is not None:
            self._compiled.know_tenants(wrapped)

    async def prepare(self, batches: Sequence[tuple[RecordBatch, LogHead]]) -> list[PreparedBatch]:
        """Each batch's accepted events, sealed, and its dead letters, not yet published.

        New subjects of all batches get their keys in one go, which waits for two servers.

        Raises:
            Unavailable: The registry, the database or the journal does not answer, or the lease on keys
                ended; call again.
        """
        known = self._judge.tenants
        # Before the first key is looked at: an erasure that is applied while this goes on makes the
        # ledger refuse the batches.
        epoch = self.lease_epoch() if self.lease_epoch is not None else None
        under_way = [await self._go_through(batch, head, epoch) for batch, head in batches]
        if self.look_for_tenants and any(going.names_unknown_tenant for going in under_way):
            await self.look_for_tenants()
            if self._judge.tenants != known:
                under_way = [await self._go_through(batch, head, epoch) for batch, head in batches]
        await self._seal_waiting(under_way)
        return [going.done() for going in under_way]

    async def _go_through(self, batch: RecordBatch, head: LogHead, epoch: int | None) -> _Going:
        """Decode and judge every record, and seal those whose keys are in memory."""
        going = _Going(batch, head, epoch)
        for start in range(0, len(batch.records), _STEP):
            await asyncio.sleep(0)
            records = batch.records[start : start + _STEP]
            if self._compiled is None:
                for record in records:
                    await self._by_hand(going, record)
                continue
            fates = self._compiled.seal(batch.topic, records)
            if isinstance(fates, list):
                going.events += fates
                continue
            for record, fate in zip(records, fates, strict=True):
                if fate is None:
                    await self._by_hand(going, record)
                elif isinstance(fate, Keyless):
                    going.keyless.append((len(going.events), record, fate))
                    going.events.append(None)
                else:
                    going.events.append(fate)
        return going

    async def _by_hand(self, going: _Going, record: Record, place: int | None = None) -> None:
        """One record's event, or its letter; at ``place`` or, without one, after the last event."""
        try:
            judged = await self._decode(going, record)
            keys = self._keys.known(judged.owned)
            event = None if keys is None else _seal(going.family, judged, keys)
        except InvalidRecord as refusal:
            going.refuse(record, refusal)
            return
        if place is None:
            place = len(going.events)
            going.events.append(event)
        else:
            going.events[place] = event
        if event is None:
            going.waiting.append((place, judged))

    async def _decode(self, going: _Going, record: Record) -> Judged:
        """Raises ``InvalidRecord``, and ``Unavailable`` of the registry."""
        topic, value = going.batch.topic, record.value
        schema = schema_id(value, self._limits.event_bytes)
        decode = self._decoders.ready(topic).get(schema)
        if decode is None:
            decode = await self._decoders.decoder(topic, schema)
        try:
            clear, groups = decode(value, HEADER_BYTES)  # type: ignore[arg-type]
        except IndexError:  # the decoder ran out of bytes
            raise InvalidRecord(Reason.TRUNCATED) from None
        except UnicodeDecodeError:
            raise InvalidRecord(Reason.INVALID_UTF8) from None
        return self._judge.event(record, schema, clear, groups)

    async def _seal_waiting(self, under_way: Sequence[_Going]) -> None:
        """Find or make all the keys that are not in memory at once, and seal the events in their
        places.
        """
        # The newest event of each: a subject that was erased opens a new key only for what came later.
        wanted: dict[Subject, int] = {}
        for going in under_way:
            for _place, judged in going.waiting:
                for subject, _values in judged.owned:
                    _note_newest(wanted, subject, judged.occurred_at_us)
            for _at, _record, keyless in going.keyless:
                for subject in keyless.subjects:
                    _note_newest(wanted, subject, keyless.occurred_at_us)
        found = await self._keys.resolve(wanted) if wanted else {}
        for going in under_way:
            await self._seal_keyless(going)
            for at, (place, judged) in enumerate(going.waiting):
                if not at % _STEP:
                    await asyncio.sleep(0)
                keys = [found.get(subject) for subject, _values in judged.owned]
                try:
                    going.events[place] = _seal(going.family, judged, keys)
                except InvalidRecord as refusal:
                    going.refuse(judged.record, refusal)

    async def _seal_keyless(self, going: _Going) -> None:
        """Give the compiled sealer its records again; what it leaves now is done here (a subject
        whose key is gone, a key that left the memory again).
        """
        if self._compiled is None or not going.keyless:
            return
        records = [record for _place, record, _keyless in going.keyless]
        fates = self._compiled.seal(going.batch.topic, records)
        for (place, record, _keyless), fate in zip(going.keyless, fates, strict=True):
            if fate is None or isinstance(fate, Keyless):
                await self._by_hand(going, record, place)
            else:
                going.events[place] = fate


def _note_newest(wanted: dict[Subject, int], subject: Subject, occurred_at_us: int) -> None:
    wanted[subject] = max(occurred_at_us, wanted.get(subject, occurred_at_us))


def _seal(family: str, judged: Judged, keys: Sequence[SubjectKey | None]) -> SealedEvent:
    """One accepted event, sealed; a subject without a key was erased, or one that came back was when
    this happened.

    Raises:
        InvalidRecord: ``control_character``.
    """
    sealed = []
    opened: Flat = {}
    actor_ref = None
    for (subject, values), known in zip(judged.owned, keys, strict=True):
        is_erased = known is not None and judged.occurred_at_us <= known.erased_until_us
        key = None if is_erased else known
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
