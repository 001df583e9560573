"""What holds, redaction and expiry need, made from settings and closed again.

Two roles: audit_writer reads (it sees every tenant and opens blobs), audit_redactor alone changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar, cast
from uuid import uuid4

from pipeline.compliance.candidates import Candidates
from pipeline.compliance.expiry import Expiring
from pipeline.compliance.holding import ArchiveHolds, HoldCopies
from pipeline.compliance.keeping import Keeping
from pipeline.compliance.order_store import OrderStore
from pipeline.compliance.policy_run import PolicyStore
from pipeline.compliance.retention import Rules
from pipeline.compliance.trail_events import Operator, system_event
from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.announcing import announcer, operator_of
from pipeline.entrypoints.cli.output import Row
from pipeline.entrypoints.cli.stores import (
    archive_reader,
    index_client,
    object_store,
    opening_keys,
    redactor_url,
)
from pipeline.keys.provider import load_provider
from pipeline.keys.subjects import Subject, subject_message
from sinks.documents import Documents
from sinks.expiring import ExpiringLeaves
from sinks.holds import Holds
from sinks.index_rewrite import IndexRewriter
from sinks.ledger import PostgresLedger
from sinks.removals import Removals, Request
from sinks.retention import Retention
from sinks.s3 import S3, Lock, LockMode
from sinks.subject_store import SubjectStore
from sinks.vault_blobs import VaultBlobs

if TYPE_CHECKING:
    from pipeline.keys.provider import KeyProvider
    from pipeline.settings import Settings

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Tools:
    """All of it. ``tenants``: retention days by tenant, those that have their own."""

    settings: Settings
    keeping: Keeping
    provider: KeyProvider
    store: SubjectStore
    retention: Retention
    expiring: ExpiringLeaves
    objects: S3
    archive_holds: ArchiveHolds
    hold_copies: HoldCopies
    tenants: Mapping[str, int]

    def subject_hash(self, subject: Subject) -> bytes:
        """How the ledger knows a person."""
        return self.provider.mac(subject_message(subject))

    async def say_in_trail(
        self,
        operation: str,
        action: str,
        *,
        tenant: str,
        resources: tuple[tuple[str, str], ...] = (),
        data_subjects: tuple[Mapping[str, str], ...] = (),
        reason: str | None = None,
    ) -> str:
        """An event about what a person does here; a leaf on return. Its id."""
        event = system_event(
            event_id=uuid4(),
            occurred_at_us=time.time_ns() // 1000,
            operation=operation,
            action=action,
            tenant=tenant,
            operator=Operator(self.keeping.operator, tenant),
            resources=resources,
            data_subjects=data_subjects,
            reason=reason,
        )
        await self.keeping.announce(event)
        return str(event["event_id"])


def with_tools(settings: Settings, work: Callable[[Tools], Awaitable[Answer]]) -> Answer:
    """One coroutine with everything open."""

    async def run() -> Answer:
        async with open_tools(settings) as tools:
            return await work(tools)

    return asyncio.run(run())


async def require_tenant(tools: Tools, tenant: str) -> None:
    """Raises ``ConfigurationError`` when there is no such tenant."""
    if tenant not in await tools.store.tenants():
        raise ConfigurationError(f"there is no tenant {tenant}; see: audit-trail tenants list")


async def expiring(
    tools: Tools, *, on_leaves: Callable[[int], None] = lambda _leaves: None
) -> Expiring:
    """Expiry under the policies as they are now."""
    policies = await tools.retention.policies()
    rules = Rules.of(policies, tools.tenants, tools.settings.retention_days)
    return Expiring(tools.keeping, tools.retention, tools.expiring, rules, on_leaves=on_leaves)


def request_row(request: Request) -> Row:
    """For output; counts and times only in JSON."""
    return {
        "request_id": str(request.request_id),
        "kind": request.kind,
        "state": request.state,
        "tenant": request.tenant,
        "class": request.class_,
        "month": f"{request.month:%Y-%m}" if request.month else None,
        "policy": request.policy,
        "leaves": request.leaves,
        "reason": request.reason,
        "requested_by": request.requested_by,
        "requested_at": request.requested_at.isoformat(),
        "root": request.root.hex(),
        "event_id": str(request.event_id),
        "done_at": request.done_at.isoformat() if request.done_at else None,
        **{str(name): int(count) for name, count in sorted(request.counts.items())},
    }


@asynccontextmanager
async def policy_store(settings: Settings) -> AsyncIterator[PolicyStore]:
    """The stored policies, as audit_redactor."""
    store = PolicyStore(redactor_url(settings), timeout_s=settings.request_timeout_s)
    try:
        yield store
    finally:
        await store.close()


def utc(time: datetime | None) -> datetime | None:
    """A time that a person typed: UTC unless it says otherwise."""
    return time and time.replace(tzinfo=time.tzinfo or UTC)


@asynccontextmanager
async def open_tools(settings: Settings) -> AsyncIterator[Tools]:
    """Everything open; the index and the buckets are asked when they are needed.

    Raises:
        ConfigurationError: No redactor's URL, no key file, no such system tenant.
        Unavailable: The database does not answer.
    """
    url, redactor = settings.database_url.get_secret_value(), redactor_url(settings)
    timeout_s = settings.request_timeout_s
    provider = await asyncio.to_thread(load_provider, settings)
    async with AsyncExitStack() as stack:
        ledger = PostgresLedger(url, timeout_s=timeout_s, late_after_s=settings.late_after_s)
        store = SubjectStore(url, timeout_s=timeout_s)
        candidates = Candidates(url, ledger, timeout_s=timeout_s)
        expiring = ExpiringLeaves(url, timeout_s=timeout_s)
        removals = Removals(redactor, timeout_s=timeout_s)
        holds = Holds(redactor, timeout_s=timeout_s)
        retention = Retention(redactor, timeout_s=timeout_s)
        for part in (ledger, store, candidates, expiring, removals, holds, retention):
            stack.push_async_callback(part.close)
        keys = opening_keys(settings, provider, store)
        wrapped = await store.tenants()
        await asyncio.to_thread(keys.know_tenants, wrapped)
        known = await store.list_tenants()
        days = {one.tenant: one.retention_days for one in known if one.retention_days is not None}
        objects = await stack.enter_async_context(object_store(settings))
        archive = archive_reader(settings, objects)
        keeping = Keeping(
            candidates=candidates,
            keys=keys,
            removals=removals,
            holds=holds,
            orders=order_store(settings, objects, days),
            archive=archive,
            vault=VaultBlobs(objects, settings.s3_vault_bucket, holds.refuse_held),
            index=_index(settings, removals, stack),
            announce=announcer(settings, removals.in_ledger),
            operator=operator_of(settings),
            system_tenant=_system_tenant(settings, [one.tenant for one in known]),
            wait_s=settings.trail_wait_s,
        )
        archive_bucket, vault_bucket = settings.s3_archive_bucket, settings.s3_vault_bucket
        yield Tools(
            settings=settings,
            keeping=keeping,
            provider=provider,
            store=store,
            retention=retention,
            expiring=expiring,
            objects=objects,
            archive_holds=ArchiveHolds(objects, archive, bucket=archive_bucket, holds=holds),
            hold_copies=HoldCopies(objects, bucket=vault_bucket),
            tenants=days,
        )


def order_store(settings: Settings, objects: S3, days: Mapping[str, int]) -> OrderStore:
    """Orders are locked for as long as the longest retention."""
    longest = max((*days.values(), settings.retention_days))

    def lock() -> Lock:
        mode = cast("LockMode", settings.s3_lock_mode)
        return Lock(mode, datetime.now(UTC) + timedelta(days=longest))

    return OrderStore(objects, bucket=settings.s3_archive_bucket, lock=lock)


def _index(settings: Settings, removals: Removals, stack: AsyncExitStack) -> IndexRewriter:
    client = index_client(settings)
    stack.push_async_callback(client.close)
    return IndexRewriter(
        client,
        Documents(late_after_s=settings.late_after_s),
        removals.next_rewrite,
        prefix=settings.index_prefix,
        retry_first_s=settings.retry_first_s,
        retry_max_s=settings.retry_max_s,
    )


def _system_tenant(settings: Settings, tenants: list[str]) -> str:
    if settings.system_tenant and settings.system_tenant not in tenants:
        raise ConfigurationError(
            f"AUDIT_SYSTEM_TENANT: there is no tenant {settings.system_tenant}"
        )
    # Without tenants there is no event either that could expire.
    return settings.system_tenant or next(iter(tenants), "")
