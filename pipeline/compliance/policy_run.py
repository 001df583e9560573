"""Policies of redaction in the ledger, and applying them: every event once per rule, when it is old enough.

``redaction_position`` says how far a rule has looked at each log; it moves only after what was found
there is gone from every store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from psycopg.types.json import Jsonb

from pipeline.compliance.candidates import LogSize, Selection
from pipeline.compliance.keeping import Keeping
from pipeline.compliance.policy_file import RedactionPolicy
from pipeline.compliance.redaction import Plan, Redaction
from pipeline.db.connection import Connection

# Leaves that one step looks at: what it finds is one request for each tenant.
STEP_LEAVES = 10_000

_SET = """
INSERT INTO redaction_policy (name, rule, rule_hash, set_by) VALUES (%s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE SET rule = excluded.rule, rule_hash = excluded.rule_hash,
    enabled = true, set_by = excluded.set_by, set_at = now()
"""
_ALL = "SELECT rule FROM redaction_policy WHERE enabled ORDER BY name"
_REMOVE = "DELETE FROM redaction_policy WHERE name = %s"
_POSITIONS = "SELECT log_id, next_leaf FROM redaction_position WHERE rule_hash = %s"
_ADVANCE = """
INSERT INTO redaction_position (rule_hash, log_id, next_leaf) VALUES (%s, %s, %s)
ON CONFLICT (rule_hash, log_id) DO UPDATE
SET next_leaf = greatest(redaction_position.next_leaf, excluded.next_leaf)
"""


class PolicyStore:
    """The tables of policies, as audit_redactor. Every call may raise ``Unavailable``."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._connection = Connection(url, name="policies", timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def set(self, policy: RedactionPolicy, *, by: str) -> None:
        """Store or replace a policy; durable on return."""
        async with self._connection.session() as connection:
            await connection.execute(
                _SET, [policy.name, Jsonb(policy.as_dict()), policy.rule_hash, by]
            )

    async def all(self) -> list[RedactionPolicy]:
        """The policies that are applied, by name."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_ALL)
            return [RedactionPolicy.from_dict(rule) for (rule,) in await cursor.fetchall()]

    async def remove(self, name: str) -> bool:
        """Take a policy away; False when there was none."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_REMOVE, [name])
            return cursor.rowcount == 1

    async def positions(self, policy: RedactionPolicy) -> Mapping[int, int]:
        """How far a rule has looked, by log id."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_POSITIONS, [policy.rule_hash])
            return dict(await cursor.fetchall())

    async def advance(self, policy: RedactionPolicy, log_id: int, next_leaf: int) -> None:
        """A rule has looked at all leaves before this one; only moves forward."""
        async with self._connection.session() as connection:
            await connection.execute(_ADVANCE, [policy.rule_hash, log_id, next_leaf])


@dataclass(slots=True)
class PolicyOutcome:
    """What one run of a policy did. ``held``: events that it could not cut; ``waits``: logs that it will
    look at again for them.
    """

    policy: str
    requests: list[UUID]
    events: int = 0
    held: int = 0


class PolicyRun:
    """Applies policies."""

    def __init__(self, keeping: Keeping, store: PolicyStore) -> None:
        self._keeping = keeping
        self._store = store
        self._redaction = Redaction(keeping)

    async def preview(self, policy: RedactionPolicy) -> Plan:
        """What a policy would cut now, as if it had cut nothing yet; nothing is changed."""
        return await self._redaction.plan(self._selection(policy), policy.rule)

    async def apply(self, policy: RedactionPolicy) -> PolicyOutcome:
        """Cut what is old enough and was not looked at yet. A held event keeps its log's position, so that
        the next run comes to it again.

        Raises:
            Held, Unavailable, ChainBroken: As ``Redaction.carry_out``; run it again.
        """
        outcome = PolicyOutcome(policy.name, [])
        positions = await self._store.positions(policy)
        for log in await self._keeping.candidates.logs():
            await self._log(policy, log, positions.get(log.log_id, 0), outcome)
        return outcome

    async def _log(
        self, policy: RedactionPolicy, log: LogSize, first: int, outcome: PolicyOutcome
    ) -> None:
        selection = self._selection(policy)
        if selection.old_at is None:
            raise ValueError("a policy without an age")
        blocked = False
        while first < log.size:
            end = min(first + STEP_LEAVES, log.size)
            until = await self._keeping.candidates.old_until(log, first, end, selection.old_at)
            ranges = {str(log.name): (first, end)}
            plan = await self._redaction.plan(selection, policy.rule, ranges=ranges)
            for request_id in await self._redaction.order(
                plan, reason=policy.reason, policy=policy.name
            ):
                await self._redaction.carry_out(request_id)
                outcome.requests.append(request_id)
            outcome.events += plan.events
            outcome.held += len(plan.held)
            blocked = blocked or bool(plan.held) or until < end
            if not blocked:
                await self._store.advance(policy, log.log_id, until)
            if until < end and not plan.events:
                return  # what comes later was stored later
            first = end

    def _selection(self, policy: RedactionPolicy) -> Selection:
        return Selection(
            tenants=policy.tenants,
            families=policy.families,
            actions=policy.actions,
            old_at=self._keeping.now() - timedelta(days=policy.older_than_days),
        )
