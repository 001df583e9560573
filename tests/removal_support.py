"""Erasure, redaction and expiry over a small trail in real stores, by the commands' own library code.

In the place of Kafka and a worker: what is published to ``audit.raw.system`` becomes a leaf at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

from pipeline.compliance.candidates import Candidates
from pipeline.compliance.erasure import Erasure
from pipeline.compliance.erasure_parts import Bounds, Tools
from pipeline.compliance.expiry import Expiring
from pipeline.compliance.keeping import Keeping
from pipeline.compliance.order_store import OrderStore
from pipeline.compliance.patterns import FieldRule
from pipeline.compliance.redaction import Redaction
from pipeline.compliance.retention import Rules
from pipeline.compliance.trail_events import Announcer
from pipeline.compliance.verify_state import Progress
from pipeline.domain.erasure import RedactionCommand
from pipeline.domain.escrow import EscrowEntry
from pipeline.domain.logs import SYSTEM_TOPIC
from pipeline.keys.subjects import SubjectKey, SubjectKeys
from pipeline.testing import an_actor, an_event
from sinks.documents import Documents
from sinks.erasure_store import ErasureStore
from sinks.expiring import ExpiringLeaves
from sinks.holds import Holds
from sinks.index_rewrite import IndexRewriter
from sinks.key_escrow import KeyEscrow
from sinks.ledger import PostgresLedger
from sinks.opening import BlobOpener
from sinks.removals import Removals
from sinks.retention import Retention
from sinks.s3 import Lock
from sinks.subject_store import SubjectStore
from sinks.vault import Vault
from sinks.vault_blobs import VaultBlobs
from tests.index_support import KEY, LATE_AFTER_S, seal_event
from tests.trail_support import SIGNER, Trail

OTHER = SubjectKey(UUID(int=8), b"o" * 32)
OPERATOR = SubjectKey(UUID(int=9), b"p" * 32)
SUBJECTS = {KEY: bytes([1]) * 32, OTHER: bytes([2]) * 32, OPERATOR: bytes([3]) * 32}
FAR = datetime(2035, 1, 1, tzinfo=UTC)


class Keys:
    """The subjects' keys, but for those that the database has destroyed."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail

    def living(self) -> dict[UUID, SubjectKey]:
        statement = "SELECT subject_ref FROM audit_user WHERE wrapped_key IS NOT NULL"
        there = {row[0] for row in self._trail.database.run("admin", statement)}
        return {UUID(bytes=key.ref): key for key in SUBJECTS if UUID(bytes=key.ref) in there}

    async def by_ref(self, refs: Iterable[UUID]) -> Mapping[UUID, SubjectKey]:
        living = await asyncio.to_thread(self.living)
        return {ref: living[ref] for ref in refs if ref in living}


class Topics:
    """Topics that hold nothing but what is published to them now."""

    def __init__(self, removing: Removing) -> None:
        self._removing = removing
        self._loop = asyncio.get_running_loop()

    def publish_event(self, event: dict[str, Any]) -> None:
        published = self._removing.publish(event)
        asyncio.run_coroutine_threadsafe(published, self._loop).result(30)

    def publish_command(self, command: RedactionCommand) -> None: ...

    def commands(self) -> list[RedactionCommand]:
        return []

    def journal_end(self) -> int:
        return 0

    def raw_ends(self) -> dict[tuple[str, int], int]:
        return {}

    def delete_below(self, offsets: Mapping[tuple[str, int], int]) -> None: ...

    def letters_naming(self, hashes: frozenset[bytes]) -> list[Any]:
        return []


class Documented:
    """``pipeline.compliance.erasure_parts.SearchIndex``."""

    def __init__(self, trail: Trail) -> None:
        self._server = trail.server
        self._loop = asyncio.get_running_loop()

    def refresh(self) -> None: ...

    def count(self, refs: Any) -> int:
        wanted = self._server.count(terms={"audit.subject_ref": [str(ref) for ref in refs]})
        return asyncio.run_coroutine_threadsafe(wanted, self._loop).result(30)

    def expunge(self) -> int:
        return 0


@dataclass
class Removing:
    """A trail of two logs, that of the system among them, and what removes from it."""

    trail: Trail
    system: Trail
    keeping: Keeping
    expiring: ExpiringLeaves
    retention: Retention
    tools: Tools
    keys: Keys

    async def publish(self, event: Mapping[str, Any]) -> None:
        """What a worker makes of an event of the trail itself."""
        whole = an_event("system", **{k: v for k, v in event.items() if v is not None})
        whole["actor"] = an_actor("ann", tenant="acme")
        none = dict.fromkeys(("tenant", "name", "path"))
        whole["resources"] = [{**none, **one} for one in whole["resources"]]
        await self.system.store([seal_event("system", whole, key=OPERATOR)])

    async def verify(self, **options: Any) -> Progress:
        return await self.trail.verify(**{"keys": self.keys.living(), **options})

    async def order(self, leaf: int, path: str) -> UUID:
        """A redaction of one value, ordered."""
        redaction = Redaction(self.keeping)
        event_id = UUID(self.trail.event_id(leaf))
        plan = await redaction.plan_event(event_id, FieldRule(fields=(path,)))
        [request] = await redaction.order(plan, reason="a test")
        return request

    async def redact(self, leaf: int, path: str) -> UUID:
        request = await self.order(leaf, path)
        assert (await Redaction(self.keeping).carry_out(request)).state == "done"
        return request

    async def expire(self, month: str, policies: Mapping[tuple[str, str], int]) -> UUID:
        """What is due of a month first: all of it, or a class's blobs."""
        rules = Rules(policies, {}, 400)
        work = Expiring(self.keeping, self.retention, self.expiring, rules)
        found = [one for one in await work.assess() if f"{one.due.scope.month:%Y-%m}" == month]
        request = await work.let_go(found[0], reason="retention has passed")
        assert request is not None
        assert request.state == "done"
        return request.request_id

    async def erase(self, key: SubjectKey = KEY) -> UUID:
        store, request = self.tools.store, uuid4()
        await store.create(
            request,
            tenant="acme",
            id_types=["user_id"],
            subject_hashes=[SUBJECTS[key]],
            raw_key_hashes=[bytes(32)],
            reason="GDPR-17",
            requested_by="one",
            four_eyes=False,
        )
        await store.approve(request, "one")
        assert (await Erasure(self.tools, request).run()).state == "inaccessible"
        return request


@asynccontextmanager
async def removing(trail: Trail, *, now: datetime = FAR) -> AsyncIterator[Removing]:
    """Everything open over a trail; ``now`` is what is old enough at."""
    urls, gateway = trail.database.urls, trail.gateway
    head = await trail.ledger.open_log(SYSTEM_TOPIC, 0, cluster_id="c", topic_id="s")
    system = replace(trail, head=head, events=[])
    async with AsyncExitStack() as stack:
        ledger, keys = PostgresLedger(urls["writer"]), Keys(trail)
        candidates = Candidates(urls["writer"], ledger)
        expiring = ExpiringLeaves(urls["writer"])
        subjects = SubjectStore(urls["writer"])
        removals, holds = Removals(urls["redactor"]), Holds(urls["redactor"])
        retention, erasures = Retention(urls["redactor"]), ErasureStore(urls["redactor"])
        for part in (ledger, candidates, expiring, subjects, removals, holds, retention, erasures):
            stack.push_async_callback(part.close)
        await subjects.subject_keys([_entry(key, hashed) for key, hashed in SUBJECTS.items()])
        documents, vault = Documents(late_after_s=LATE_AFTER_S), Vault(gateway.s3, gateway.vault)
        patience: dict[str, Any] = {
            "prefix": trail.server.prefix,
            "retry_first_s": 0.01,
            "retry_max_s": 0.1,
        }
        client = trail.server.client

        async def publish(event: Mapping[str, Any]) -> None:
            await made.publish(event)

        subject_keys = cast("SubjectKeys", keys)
        keeping = Keeping(
            candidates=candidates,
            keys=subject_keys,
            removals=removals,
            holds=holds,
            orders=OrderStore(gateway.s3, bucket=gateway.archive, lock=_lock),
            archive=gateway.reader,
            vault=VaultBlobs(gateway.s3, gateway.vault, holds.refuse_held),
            index=IndexRewriter(client, documents, removals.next_rewrite, **patience),
            announce=Announcer(publish, removals.in_ledger, wait_s=5),
            operator="ann",
            system_tenant="acme",
            wait_s=5,
            now=lambda: now,
        )
        made = Removing(trail, system, keeping, expiring, retention, cast("Tools", None), keys)
        made.tools = Tools(
            store=erasures,
            ledger=ledger,
            keys=subjects,
            opener=BlobOpener(subject_keys),
            vault=vault,
            escrow=KeyEscrow(subjects, vault),
            overwriter=IndexRewriter(client, documents, erasures.next_rewrite, **patience),
            brokers=Topics(made),
            index=Documented(trail),
            signers=[SIGNER],
            bounds=Bounds(wait_s=5, look_s=0.05, letters_days=30, raw_days=7, backups_days=30),
            on_step=lambda _step: None,
            sleep=asyncio.sleep,
        )
        yield made


def _entry(key: SubjectKey, hashed: bytes) -> EscrowEntry:
    return EscrowEntry(
        subject_hash=hashed,
        generation=1,
        subject_ref=key.ref,
        tenant="acme",
        id_type="user_id",
        wrapped_key=bytes(60),
        first_occurred_at_us=0,
    )


def _lock() -> Lock:
    return Lock("GOVERNANCE", datetime.now(UTC) + timedelta(days=1))
