"""Redaction: values are cut from the blobs in the ledger, from the vault and from the index.

The commitments stay in the canonical bytes, so that every proof still verifies. Nothing is cut before
the ledger has the leaf that names the request and commits to its events; a run that ended anywhere
goes on where it was (``carry_out``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from pipeline.compliance.candidates import LogSize, Selection
from pipeline.compliance.keeping import ARCHIVE, INDEX, Keeping, microseconds
from pipeline.compliance.patterns import FieldRule
from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.domain.orders import REDACTION, Order, affected_root
from pipeline.domain.records import LeafRange, SealedBlob, SealedEvent
from pipeline.keys.seal import open_blob, seal_values
from sinks.opening import BlobOpener
from sinks.removals import Cut, CutMeanwhile, Flag, Request

# Of one request: its flags are one transaction, its order one object.
MAX_EVENTS = 10_000
_CUTS_AT_ONCE = 200
_READS = 5  # each lost one is another cut that was done
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Advance = Callable[[int], None]


def _unwatched(_events: int) -> None: ...


@dataclass(frozen=True, slots=True)
class HeldEvent:
    """An event that a redaction would cut, if it were not held."""

    log: str
    leaf_index: int
    holds: tuple[str, ...]


@dataclass(slots=True)
class Plan:
    """What a redaction is about, by tenant; ``more``: it stopped at ``MAX_EVENTS``."""

    by_tenant: dict[str, list[tuple[Flag, bytes]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    held: list[HeldEvent] = field(default_factory=list)
    paths: Counter[str] = field(default_factory=Counter)
    looked_at: int = 0
    more: bool = False

    @property
    def events(self) -> int:
        """Events of which something would be cut."""
        return sum(len(flags) for flags in self.by_tenant.values())


class Redaction:
    """Plans, orders and carries out redactions."""

    def __init__(self, keeping: Keeping, *, on_events: Advance = _unwatched) -> None:
        self._keeping = keeping
        self._on_events = on_events

    async def plan(
        self,
        selection: Selection,
        rule: FieldRule,
        *,
        ranges: Mapping[str, tuple[int, int]] | None = None,
    ) -> Plan:
        """The values of the chosen events that a rule takes; nothing is changed.

        Held events are named apart. ``ranges``: only these logs, by name, from one leaf to another.
        """
        rule.check()
        plan = Plan()
        for log in await self._keeping.candidates.logs():
            first, end = (ranges or {}).get(str(log.name), (0, log.size if ranges is None else 0))
            log = log._replace(size=min(end, log.size))  # noqa: PLW2901
            async for indexes in self._keeping.candidates.indexes(log, selection, first_leaf=first):
                await self._look(log, indexes, rule, plan)
                if plan.events >= MAX_EVENTS:
                    plan.more = True
                    return plan
        return plan

    async def plan_event(self, event_id: UUID, rule: FieldRule) -> Plan:
        """The same for one event."""
        rule.check()
        plan = Plan()
        log, leaf, _tenant = await self._keeping.candidates.place(event_id)
        await self._look(log, [leaf], rule, plan)
        return plan

    async def order(self, plan: Plan, *, reason: str, policy: str | None = None) -> list[UUID]:
        """Store one request for each tenant of a plan; durable on return, and nothing is cut yet."""
        keeping = self._keeping
        now = keeping.asked_at()
        ids = []
        for tenant, found in sorted(plan.by_tenant.items()):
            request_id = uuid4()
            flags = [flag for flag, _hash in found]
            order = _order(
                request_id, tenant, reason, now, flags, affected_root(h for _flag, h in found)
            )
            await keeping.removals.insert(
                _request(order, requested_by=keeping.operator, policy=policy), flags
            )
            ids.append(request_id)
        return ids

    async def carry_out(self, request_id: UUID) -> Request:
        """Cut what a request names from every store; the request afterwards. May be repeated.

        Raises:
            Held: A hold came since the request was made; what was cut stays cut.
            Unavailable: A store or the worker is away; the request waits, call again.
            ChainBroken: The rows are not what was ordered, or stores contradict each other.
        """
        keeping = self._keeping
        request = await keeping.removals.get(request_id)
        if request.kind != REDACTION:
            raise ConfigurationError(f"request {request_id} is no redaction")
        if request.state == "done":
            return request
        flags = await keeping.removals.flags(request_id)
        if request.state == "planned":
            order = _order(
                request_id,
                request.tenant,
                request.reason,
                request.requested_at,
                flags,
                request.root,
            )
            await keeping.authorise(request, order)
        by_log = await self._present(flags)
        for log, of_log in by_log.items():
            await self._cut_ledger(request_id, log, [flag for flag in of_log if not flag.redacted])
        ends = {str(log.name): of_log[-1].leaf_index + 1 for log, of_log in by_log.items()}
        await keeping.until_followed(ARCHIVE, ends)
        await keeping.until_followed(INDEX, ends)
        counts: Counter[str] = Counter(events=len(flags))
        counts["values"] = sum(len(flag.paths) for flag in flags)
        for log, of_log in by_log.items():
            await self._rewrite_copies(log, of_log, counts)
        await keeping.removals.set_done(request_id, counts)
        return await keeping.removals.get(request_id)

    async def again(self, order: Order) -> UUID:
        """An order that the database has lost, as a request; ``carry_out`` does the rest. The ledger's own
        blobs are cut now, if its leaf came back: before a worker builds a document from them.
        """
        logs = {str(log.name): log for log in await self._keeping.candidates.logs()}
        flags = []
        for name, leaves in order.leaves.items():
            if name not in logs:
                continue  # nothing of that log came back
            paths = dict(leaves)
            candidates, log = self._keeping.candidates, logs[name]
            there = await candidates.present(log.log_id, sorted(paths))
            async for leaf, event in candidates.events(log, there):
                flags.append(_flag(log, leaf, event, paths[leaf]))
        request = _request(order, requested_by="restored from its order", policy=None)
        removals = self._keeping.removals
        await removals.insert(request, flags)
        if await removals.in_ledger(order.event_id):
            await removals.set_ordered(order.request_id)
            for log, of_log in (await self._present(flags)).items():
                await self._cut_ledger(order.request_id, log, of_log)
        return order.request_id

    async def _present(self, flags: Sequence[Flag]) -> dict[LogSize, list[Flag]]:
        """The flags by log, without those whose month has expired."""
        candidates = self._keeping.candidates
        by_log: dict[LogSize, list[Flag]] = {}
        for log in await candidates.logs():
            of_log = [flag for flag in flags if flag.log_id == log.log_id]
            there = set(await candidates.present(log.log_id, [flag.leaf_index for flag in of_log]))
            if kept := [flag for flag in of_log if flag.leaf_index in there]:
                by_log[log] = kept
        return by_log

    async def _look(
        self, log: LogSize, indexes: Sequence[int], rule: FieldRule, plan: Plan
    ) -> None:
        """Add what a rule takes of some leaves (in order) to a plan."""
        if not indexes:
            return
        keeping = self._keeping
        opened = BlobOpener(keeping.keys)
        held = await keeping.holds.held(log.log_id, indexes[0], indexes[-1] + 1)
        async for leaf, event in keeping.candidates.events(log, indexes):
            plan.looked_at += 1
            self._on_events(1)
            await opened(LeafRange(log.log_id, log.name, leaf, [event]))
            paths = rule.chosen(event.family, event.opened)
            if not paths:
                continue
            if leaf in held:
                holds = tuple(str(hold) for hold in held[leaf])
                plan.held.append(HeldEvent(str(log.name), leaf, holds))
                continue
            plan.paths.update(paths)
            plan.by_tenant[event.tenant].append((_flag(log, leaf, event, paths), event.leaf_hash))

    async def _cut_ledger(self, request_id: UUID, log: LogSize, flags: Sequence[Flag]) -> None:
        keeping = self._keeping
        for start in range(0, len(flags), _CUTS_AT_ONCE):
            by_leaf = {flag.leaf_index: flag for flag in flags[start : start + _CUTS_AT_ONCE]}
            for _ in range(_READS):
                cuts = []
                async for leaf, event in keeping.candidates.events(log, sorted(by_leaf)):
                    flag = by_leaf[leaf]
                    cuts.append(Cut(flag, await self._cut_blobs(event, flag.paths)))
                try:
                    await keeping.removals.cut(request_id, cuts)
                    break
                except CutMeanwhile:
                    continue
            else:
                raise Unavailable("postgres", "others keep cutting values of the same events")

    async def _cut_blobs(
        self, event: SealedEvent, paths: Iterable[str]
    ) -> list[tuple[bytes, SealedBlob]]:
        """The blobs that lose a value, without it, under fresh nonces, each with the nonce that it had; a
        blob whose key is gone cannot be opened by anybody and stays.
        """
        refs = {UUID(bytes=blob.subject_ref) for blob in event.blobs}
        keys = {ref.bytes: key for ref, key in (await self._keeping.keys.by_ref(refs)).items()}
        gone = set(paths)
        changed = []
        for blob in event.blobs:
            key = keys.get(blob.subject_ref)
            if key is None:
                continue
            values = open_blob(key, event.event_id, blob)
            kept = {path: value for path, value in values.items() if path not in gone}
            if len(kept) < len(values):
                changed.append((blob.nonce, seal_values(key, event.event_id, kept)))
        return changed

    async def _rewrite_copies(
        self, log: LogSize, flags: Sequence[Flag], counts: Counter[str]
    ) -> None:
        """Vault and index of some events, from the ledger as it is now."""
        keeping = self._keeping
        for start in range(0, len(flags), _CUTS_AT_ONCE):
            leaves = [flag.leaf_index for flag in flags[start : start + _CUTS_AT_ONCE]]
            for done in await keeping.rewrite_vault(log, leaves):
                counts["vault_bytes"] += done.freed_bytes
                counts["vault_objects"] += 1
            counts["documents"] += await keeping.rewrite_index(log, leaves)
            self._on_events(len(leaves))


def _flag(log: LogSize, leaf: int, event: SealedEvent, paths: Sequence[str]) -> Flag:
    occurred_at = _EPOCH + timedelta(microseconds=event.occurred_at_us)
    return Flag(log.log_id, str(log.name), leaf, occurred_at, tuple(paths))


def _order(
    request_id: UUID,
    tenant: str | None,
    reason: str,
    requested_at: datetime,
    flags: Sequence[Flag],
    root: bytes,
) -> Order:
    leaves: defaultdict[str, list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
    for flag in flags:
        leaves[flag.log].append((flag.leaf_index, flag.paths))
    return Order(
        request_id, REDACTION, tenant, reason, microseconds(requested_at), len(flags), root, leaves
    )


def _request(order: Order, *, requested_by: str, policy: str | None) -> Request:
    return Request(
        request_id=order.request_id,
        kind=order.kind,
        state="planned",
        tenant=order.tenant,
        class_=None,
        month=None,
        days=None,
        stored_after=None,
        stored_until=None,
        bounds={},
        policy=policy,
        reason=order.reason,
        requested_by=requested_by,
        requested_at=_EPOCH + timedelta(microseconds=order.requested_at_us),
        event_id=order.event_id,
        leaves=order.count,
        root=order.root,
        order_hash=order.hash(),
        counts={},
        done_at=None,
    )
