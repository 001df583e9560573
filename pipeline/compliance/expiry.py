"""Expiry: months are dropped from ledger, index and vault, and blobs of classes that are kept shorter.

Leaves stay, and so do the sealed events in the archive under their lock: old proofs still verify.
Nothing goes that is not archived and read back as it was, not past retention by both times, or held;
the order's leaf is in the ledger first. A run that ended anywhere goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID, uuid4

from pipeline.compliance.candidates import LogSize, Selection
from pipeline.compliance.expiry_order import order_again, order_of, request_of, scope_of
from pipeline.compliance.keeping import ARCHIVE, INDEX, Keeping
from pipeline.compliance.retention import Due, Rules, due, worth_a_look
from pipeline.domain.errors import ChainBroken, ConfigurationError
from pipeline.domain.merkle import Frontier
from pipeline.domain.orders import EXPIRY, Order
from sinks.expiring import ExpiringLeaf, ExpiringLeaves, Scope
from sinks.removals import Request
from sinks.retention import Retention

RETENTION_PASSED = "retention has passed"
_AT_ONCE = 500  # leaves whose blobs go together

Advance = Callable[[int], None]


def _unwatched(_leaves: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Assessed:
    """Something that is due, and what keeps it: ``held``, ``not archived``, or nothing (``ready``).

    ``size_bytes``: what the month takes in the ledger.
    """

    due: Due
    state: str
    detail: str
    size_bytes: int


class Expiring:
    """Finds, orders and carries out expiries."""

    def __init__(
        self,
        keeping: Keeping,
        retention: Retention,
        leaves: ExpiringLeaves,
        rules: Rules,
        *,
        on_leaves: Advance = _unwatched,
    ) -> None:
        self._keeping = keeping
        self._retention = retention
        self._leaves = leaves
        self._rules = rules
        self._on_leaves = on_leaves

    async def assess(self) -> list[Assessed]:
        """What is due now, oldest first, and whether it may go; nothing is changed."""
        keeping, now = self._keeping, self._keeping.now()
        requests = [r for r in await keeping.removals.all() if r.kind == EXPIRY]
        archived = await keeping.candidates.followed(ARCHIVE)
        found = []
        for month in await self._retention.months():
            if not worth_a_look(month, self._rules, now):
                continue
            contents = await self._retention.contents(month)
            for one in due(month, contents, self._rules, requests, now):
                state, detail = await self._state(one, archived)
                found.append(Assessed(one, state, detail, month.size_bytes))
        return found

    async def let_go(self, one: Assessed, *, reason: str) -> Request | None:
        """Order and carry out something that is ready; None if no leaf is affected."""
        request_id = await self.order(one.due, reason=reason)
        return None if request_id is None else await self.carry_out(request_id)

    async def order(self, one: Due, *, reason: str) -> UUID | None:
        """Store a request for something that is ready; its id, or None if no leaf is affected. Nothing is
        removed yet.

        Raises:
            ChainBroken: The archive does not hold what the ledger has: nothing may go.
        """
        await self._verify(one)
        frontier = await self._frontier(one.scope, one.bounds)
        if not frontier.size:
            return None
        scope = one.scope
        if scope.stored_until is None:
            until = self._keeping.now() - timedelta(days=one.days)
            one = replace(one, scope=replace(scope, stored_until=until))
        order = order_of(
            uuid4(),
            one,
            reason,
            self._keeping.asked_at(),
            count=frontier.size,
            root=frontier.root(),
        )
        await self._keeping.removals.insert(request_of(order, self._keeping.operator))
        return order.request_id

    async def carry_out(self, request_id: UUID) -> Request:
        """Remove what a request names from every store; the request afterwards. May be repeated.

        Raises:
            Held: A hold came, or events of the month did, since the request was made.
            Unavailable: A store or the worker is away; the request waits, call again.
            ChainBroken: The leaves are not what was ordered, or stores contradict each other.
        """
        keeping = self._keeping
        request = await keeping.removals.get(request_id)
        if request.kind != EXPIRY or request.month is None:
            raise ConfigurationError(f"request {request_id} is no expiry")
        if request.state == "done":
            return request
        scope = scope_of(request)
        if request.state == "planned":
            frontier = await self._frontier(scope, request.bounds)
            if frontier.root() != request.root:
                raise ChainBroken(
                    "orders", f"the leaves of request {request_id} are not its root's"
                )
            await keeping.authorise(request, order_again(request, scope))
        # Nobody writes these documents and objects any more once the followers are past them.
        await keeping.until_followed(ARCHIVE, request.bounds)
        await keeping.until_followed(INDEX, request.bounds)
        counts: Counter[str] = Counter(request.counts)
        counts["leaves"] = request.leaves
        if scope.tenant is None:
            await self._expire_month(request, scope, counts)
        else:
            await self._expire_blobs(request, scope, counts)
        await keeping.removals.set_done(request_id, counts)
        return await keeping.removals.get(request_id)

    async def again(self, order: Order) -> UUID:
        """An order that the database has lost, as a request: then ``carry_out`` does it again."""
        await self._keeping.removals.insert(request_of(order, "restored from its order"))
        return order.request_id

    async def _state(self, one: Due, archived: Mapping[str, int]) -> tuple[str, str]:
        behind = [log for log, leaf in one.bounds.items() if archived.get(log, 0) < leaf]
        if behind:
            return "not archived", f"log {behind[0]}"
        keeping = self._keeping
        if one.scope.tenant is None:
            holds = {str(hold) for hold in await keeping.holds.on_month(one.scope.month)}
        else:
            holds = set()
            for log in await self._logs(one.bounds):
                async for page in self._leaves.pages(one.scope, log.log_id, log.size):
                    first, last = page[0].leaf_index, page[-1].leaf_index
                    held = await keeping.holds.held(log.log_id, first, last + 1)
                    holds |= {str(h) for leaf in page for h in held.get(leaf.leaf_index, ())}
        if holds:
            return "held", ", ".join(sorted(holds))
        return "ready", ""

    async def _verify(self, one: Due) -> None:
        """Read back every archive object that holds a leaf which goes, and compare it with the leaves."""
        for log in await self._logs(one.bounds):
            async for page in self._leaves.pages(one.scope, log.log_id, log.size):
                hashes = {leaf.leaf_index: leaf.leaf_hash for leaf in page}
                async for found, leaves in self._keeping.objects(log, sorted(hashes)):
                    stored = await self._keeping.archive.read(found, log.log_id)
                    for leaf in leaves:
                        if stored.events[leaf - stored.first_leaf].leaf_hash != hashes[leaf]:
                            raise ChainBroken(
                                str(log.name), f"leaf {leaf} differs between ledger and archive"
                            )
                    self._on_leaves(len(leaves))

    async def _expire_month(self, request: Request, scope: Scope, counts: Counter[str]) -> None:
        keeping = self._keeping
        for log in await self._logs(request.bounds):
            async for page in self._leaves.pages(scope, log.log_id, log.size):
                await self._empty_vault(log, page, counts)
        month, request_id = scope.month, request.request_id
        await keeping.removals.count(request_id, counts)
        # The ledger first: it refuses when events of the month came since, and then the index stays.
        counts["ledger_bytes"] += await keeping.removals.drop_month(month, request_id)
        await keeping.removals.count(request_id, counts)
        counts["index_bytes"] += await keeping.index.drop_month(f"{month:%Y.%m}")
        await self._index_late(scope)

    async def _index_late(self, scope: Scope) -> None:
        """Documents of events that came into the month after it was dropped, and went with its index."""
        candidates = self._keeping.candidates
        selection = Selection(occurred_from=scope.month, occurred_until=scope.end)
        for log in await candidates.logs():
            async for indexes in candidates.indexes(log, selection):
                for start in range(0, len(indexes), _AT_ONCE):
                    await self._keeping.rewrite_index(log, indexes[start : start + _AT_ONCE])

    async def _expire_blobs(self, request: Request, scope: Scope, counts: Counter[str]) -> None:
        keeping = self._keeping
        for log in await self._logs(request.bounds):
            async for page in self._leaves.pages(scope, log.log_id, log.size):
                for start in range(0, len(page), _AT_ONCE):
                    part = page[start : start + _AT_ONCE]
                    places = [(leaf.leaf_index, leaf.occurred_at) for leaf in part]
                    blobs, size = await keeping.removals.delete_blobs(
                        request.request_id, log.log_id, places
                    )
                    counts["blobs"] += blobs
                    counts["ledger_bytes"] += size
                    indexes = [leaf.leaf_index for leaf in part]
                    counts["documents"] += await keeping.rewrite_index(log, indexes)
                await self._empty_vault(log, page, counts)

    async def _empty_vault(
        self, log: LogSize, page: Sequence[ExpiringLeaf], counts: Counter[str]
    ) -> None:
        for done in await self._keeping.empty_vault(log, [leaf.leaf_index for leaf in page]):
            counts["vault_bytes"] += done.freed_bytes
            counts["vault_blobs"] += done.removed
        self._on_leaves(len(page))

    async def _frontier(self, scope: Scope, bounds: Mapping[str, int]) -> Frontier:
        """Over the hashes of all leaves that go, in the order that roots are made in."""
        frontier = Frontier()
        for log in await self._logs(bounds):
            async for page in self._leaves.pages(scope, log.log_id, log.size):
                frontier = frontier.append([leaf.leaf_hash for leaf in page])
        return frontier

    async def _logs(self, bounds: Mapping[str, int]) -> list[LogSize]:
        """The logs that bounds name, each as long as they say."""
        return [
            log._replace(size=bounds[str(log.name)])
            for log in await self._keeping.candidates.logs()
            if str(log.name) in bounds
        ]
