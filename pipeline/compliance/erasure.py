"""Erasing a person: the steps in their order, each noted when it is done, each safe to do again.

Guarantees that nothing is destroyed before the trail holds a leaf that names the request; that once the
request is *inaccessible*, no store, topic or dead letter gives the person's data through any interface;
and that a crash at any point loses nothing but the step that was under way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from pipeline.compliance.certificate import certify, settle
from pipeline.compliance.erasure_parts import Pending, Tools, facts_of
from pipeline.compliance.erasure_steps import (
    affected_leaves,
    cut_journal,
    cut_topics,
    destroy_letters,
    drop_escrow,
    overwrite_documents,
    wait_for_followers,
)
from pipeline.domain.erasure import (
    ACTION_DONE,
    ACTION_ORDERED,
    FIRST_RUN,
    LEAVES,
    OPERATION,
    REFS,
    SUBJECTS,
    LeafPlace,
    RedactionCommand,
    State,
    Step,
    first_open,
    refs_digest,
    subjects_digest,
)
from pipeline.domain.errors import AuditTrailError, Unavailable
from pipeline.domain.orders import affected_root
from sinks.erasure_store import Request

_US: Final = 1_000_000


class Erasure:
    """One request on its way. ``run`` any number of times."""

    def __init__(self, tools: Tools, request_id: UUID) -> None:
        self._tools = tools
        self._store = tools.store
        self._id = request_id
        self._steps: Mapping[Step, Callable[[Request], Awaitable[dict[str, Any]]]] = {
            Step.LEAF: self._leaf,
            Step.ORDERED: self._ordered,
            Step.KEYS: self._keys,
            Step.TOMBSTONE: self._tombstone,
            Step.LEASES: self._leases,
            Step.ESCROW: lambda request: drop_escrow(tools, request, everywhere=False),
            Step.JOURNAL: lambda _request: cut_journal(tools),
            Step.HEADS: self._heads,
            Step.FOLLOWERS: lambda request: wait_for_followers(tools, request),
            Step.LEAVES: self._leaves,
            Step.INDEX: lambda request: overwrite_documents(tools, request),
            Step.LETTERS: lambda request: destroy_letters(tools, request),
            Step.TOPICS: self._topics,
            Step.CERTIFIED: lambda request: certify(tools, request),
        }

    async def run(self) -> Request:
        """Do the steps that are not done, up to the certificate; the request afterwards.

        Raises:
            Pending: It waits for something that takes longer; resume it.
            Unavailable: A store is down; the request says so; resume it.
            AuditTrailError: It is not approved.
        """
        await self._store.move(self._id, State.RUNNING, of=[State.APPROVED])
        while True:
            request = await self._store.get(self._id)
            if request.state in (State.REQUESTED, State.WITHDRAWN):
                raise AuditTrailError(f"request {self._id} is {request.state}, not approved")
            step = first_open(request.steps, FIRST_RUN)
            if step is None:
                return request
            self._tools.on_step(step)
            await self._do(step, request)

    async def settle(self) -> Request:
        """What may take long, once the person's data is inaccessible: the rest of the vault is searched,
        deleted documents leave the disks. ``complete`` when everything has had its time.

        Raises as ``run``.
        """
        request = await self._store.get(self._id)
        if request.state not in (State.INACCESSIBLE, State.COMPLETE):
            raise AuditTrailError(f"request {self._id} is {request.state}; first run: resume")
        self._tools.on_step(Step.SETTLED)
        try:
            await settle(self._tools, request)
        except (Pending, Unavailable) as why:
            await self._store.pend(self._id, str(why))
            raise
        return await self._store.get(self._id)

    async def _do(self, step: Step, request: Request) -> None:
        try:
            facts = await self._steps[step](request)
        except (Pending, Unavailable) as why:
            await self._store.pend(self._id, f"{step}: {why}")
            raise
        await self._store.note(self._id, step, facts)

    # --- the trail's own leaves ---

    async def _leaf(self, request: Request) -> dict[str, Any]:
        await self._refuse_held(request)
        refs = [
            row.subject_ref
            for row in await self._store.subjects(request.subject_hashes)
            if row.erased_at is None
        ]
        hashes = await self._store.hashes_of(refs)
        return await self._tell(request, ACTION_ORDERED, affected_root(hashes), len(hashes))

    async def _leaves(self, request: Request) -> dict[str, Any]:
        """The first leaf could not know what was ingested until the keys were gone: this one does."""
        root, count = await affected_leaves(self._tools, request)
        return await self._tell(request, ACTION_DONE, root, count)

    async def _tell(self, request: Request, action: str, root: bytes, count: int) -> dict[str, Any]:
        """An event of the trail itself, in the ledger on return; the same one however often it is told."""
        draft = request.steps.get(f"draft {action}")
        if draft is None:
            draft = {
                "event_id": str(uuid4()),
                "root": root.hex(),
                "leaves": count,
                "occurred_at": time.time_ns() // 1000,
                "refs": refs_digest(request.subject_refs).hex() if action == ACTION_DONE else None,
            }
            await self._store.note(self._id, f"draft {action}", draft)
        event_id = UUID(draft["event_id"])
        place = await self._store.leaf_of_event(event_id)
        if place is None:
            event = _event(request, action, draft)
            await asyncio.to_thread(self._tools.brokers.publish_event, event)
            place = await self._until_stored(event_id)
        return {
            "log": place.log,
            "leaf_index": place.leaf_index,
            "root": draft["root"],
            "leaves": draft["leaves"],
        }

    async def _until_stored(self, event_id: UUID) -> LeafPlace:
        deadline = time.monotonic() + self._tools.bounds.wait_s
        while True:
            place = await self._store.leaf_of_event(event_id)
            if place is not None:
                return place
            if time.monotonic() > deadline:
                raise Pending(
                    "the trail's own leaf is not in the ledger yet: is a worker running, and is"
                    " audit.raw.system read? (audit-trail status)"
                )
            await self._tools.sleep(self._tools.bounds.look_s)

    # --- keys ---

    async def _ordered(self, request: Request) -> dict[str, Any]:
        await self._publish(request, None)
        return {}

    async def _refuse_held(self, request: Request) -> None:
        """A hold outranks an erasure, which waits for it; the database refuses as well."""
        if holds := await self._store.holds(request.subject_hashes):
            raise Pending(
                f"under legal hold {', '.join(map(str, holds))}: see audit-trail hold list"
            )

    async def _keys(self, request: Request) -> dict[str, Any]:
        await self._refuse_held(request)
        return {"epoch": await self._store.erase(self._id)}

    async def _tombstone(self, request: Request) -> dict[str, Any]:
        await self._publish(request, request.erased_at)
        return {}

    async def _publish(
        self, request: Request, erased_at: datetime | None, below: Mapping[str, int] | None = None
    ) -> None:
        leaf = facts_of(request, Step.LEAF)
        command = RedactionCommand(
            request_id=request.request_id,
            tenant=request.tenant,
            id_types=tuple(request.id_types),
            subject_hashes=tuple(request.subject_hashes),
            ordered_at_us=time.time_ns() // 1000,
            erased_at_us=None if erased_at is None else _us(erased_at),
            leaf=LeafPlace(leaf["log"], leaf["leaf_index"]),
            deleted_below=dict(below or {}),
            subject_refs=() if erased_at is None else tuple(request.subject_refs),
            raw_key_hashes=tuple(request.raw_key_hashes),
        )
        await asyncio.to_thread(self._tools.brokers.publish_command, command)

    async def _leases(self, request: Request) -> dict[str, Any]:
        """Every worker has dropped the keys, or may use none of those that it has."""
        epoch = request.epoch if request.epoch is not None else 0
        deadline = time.monotonic() + self._tools.bounds.wait_s
        while behind := await self._store.workers_behind(epoch):
            if time.monotonic() > deadline:
                raise Pending(f"{behind} workers hold leases and have not applied the erasure")
            await self._tools.sleep(self._tools.bounds.look_s)
        return {}

    async def _heads(self, _request: Request) -> dict[str, Any]:
        """Records that may be of the person and were not read yet end here."""
        ends = await asyncio.to_thread(self._tools.brokers.raw_ends)
        return {"raw": {f"{topic}/{partition}": end for (topic, partition), end in ends.items()}}

    async def _topics(self, request: Request) -> dict[str, Any]:
        facts = await cut_topics(self._tools, request)
        # After a restore of the database, who reads these topics finds that they were cut on purpose.
        await self._publish(request, request.erased_at, facts["deleted_below"])
        return facts


def _event(request: Request, action: str, draft: Mapping[str, Any]) -> dict[str, Any]:
    """Who approved is its actor; of the person it says nothing."""
    resource = {"tenant": request.tenant, "name": None, "path": None}
    root = f"{draft['root']}/{draft['leaves']}"
    refs = [{**resource, "type": REFS, "id": draft["refs"]}] if draft["refs"] else []
    return {
        "event_id": draft["event_id"],
        "occurred_at": draft["occurred_at"],
        "tenant": request.tenant,
        "action": action,
        "outcome": "success",
        "operation": OPERATION,
        "ticket": str(request.request_id),
        "producer": {
            "service": "audit-trail",
            **dict.fromkeys(("version", "instance", "environment", "epoch", "sequence")),
        },
        "actor": {
            "type": "user",
            "tenant": request.tenant,
            "id_type": "operator",
            "id": request.approved_by,
            "name": None,
            "email": None,
            "roles": [],
        },
        "resources": [
            {**resource, "type": SUBJECTS, "id": subjects_digest(request.subject_hashes).hex()},
            {**resource, "type": LEAVES, "id": root},
            *refs,
        ],
    }


def _us(moment: datetime) -> int:
    return round(moment.timestamp() * _US)
