"""``audit-trail repair``: verify, say what would be done, do it, and record it in the trail itself."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry

from pipeline.compliance.archive_walk import ArchiveWalk
from pipeline.compliance.repair import Done, Repair, Stores
from pipeline.compliance.repair_plan import RepairPlan
from pipeline.compliance.verify_state import Progress
from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.announcing import command_event, publish_system
from pipeline.entrypoints.cli.output import Row, progress
from pipeline.entrypoints.cli.stores import object_store
from pipeline.entrypoints.cli.tenants import require_tenants
from pipeline.entrypoints.cli.verifying import Wanted, subject_keys, verification
from pipeline.entrypoints.stores import make_archive, make_index
from pipeline.metrics import Metrics
from sinks.bulk import BulkClient
from sinks.ledger import PostgresLedger
from sinks.opening import BlobOpener
from sinks.subject_store import SubjectStore
from sinks.vault import Vault

if TYPE_CHECKING:
    from pipeline.settings import Settings

# Objects of a repair are cut by size; what is left is stored at once.
_AT_ONCE_S: Final = 1e-6
ACTION: Final = "trail.repair"


@dataclass(frozen=True, slots=True)
class Found:
    """A settled plan and the verification that it comes from."""

    plan: RepairPlan
    progress: Progress


def plan_repair(settings: Settings, wanted: Wanted) -> Found:
    """Verify every store and work out what to do in those of ``wanted``; nothing is changed.

    Raises:
        ConfigurationError: No key provider: without keys nobody can tell whose blob is the right one.
        Unavailable: A server does not answer.

    """
    if settings.key_file is None and not settings.kms_key_id:
        raise ConfigurationError(
            "a repair needs the subjects' keys: set AUDIT_KEY_FILE or AUDIT_KMS_KEY_ID"
        )
    return asyncio.run(_plan(settings, wanted))


async def _plan(settings: Settings, wanted: Wanted) -> Found:
    everything = replace(wanted, stores=Wanted().stores)
    async with verification(settings, everything) as (run, on_leaves):
        begun = await run.begin()
        plan = RepairPlan()
        begun.findings.on_add = plan.note
        with progress("verifying leaves", sum(log.state.size for log in begun.logs)) as done:
            on_leaves.append(done.advance)
            found = await run.run()
    plan.settle()
    if "index" not in wanted.stores:
        plan.remove.clear()
        for of_log in plan.logs.values():
            of_log.index.clear()
    if "archive" not in wanted.stores:
        for of_log in plan.logs.values():
            of_log.archive.clear()
            of_log.vault.clear()
    return Found(plan, found)


def carry_out(settings: Settings, found: Found) -> list[Done]:
    """Do what the plan says. Durable on return. Raises as ``pipeline.compliance.repair.Repair.run``."""
    log_ids = {str(log.state.name): log.state.log_id for log in found.progress.logs}
    return asyncio.run(_carry_out(settings, found.plan, log_ids))


async def _carry_out(settings: Settings, plan: RepairPlan, log_ids: dict[str, int]) -> list[Done]:
    settings = settings.model_copy(update={"archive_max_age_s": _AT_ONCE_S})
    metrics = Metrics(CollectorRegistry())
    async with AsyncExitStack() as stack:
        url = settings.database_url.get_secret_value()
        ledger = PostgresLedger(url, timeout_s=settings.request_timeout_s)
        stack.push_async_callback(ledger.close)
        store = SubjectStore(url, timeout_s=settings.request_timeout_s)
        stack.push_async_callback(store.close)
        objects = await stack.enter_async_context(object_store(settings))
        retention = {
            tenant.tenant: tenant.retention_days
            for tenant in await store.list_tenants()
            if tenant.retention_days is not None
        }
        vault = Vault(objects, settings.s3_vault_bucket)
        client, index = make_index(settings, metrics)
        stack.push_async_callback(client.close)
        stores = Stores(
            ledger,
            BlobOpener(await subject_keys(settings, stack)),
            BulkClient(client),
            index,
            lambda: make_archive(settings, metrics, objects, vault, ledger, store, retention),
            ArchiveWalk(
                objects,
                archive_bucket=settings.s3_archive_bucket,
                vault_bucket=settings.s3_vault_bucket,
            ).blob_starts,
        )
        return await Repair(stores, log_ids).run(plan)


def record(settings: Settings, done: list[Done], tenant: str) -> list[Row]:
    """Publish an event for each thing that was done to ``audit.raw.system``; a row each. Acknowledged by all
    in-sync replicas on return; the worker makes leaves of them.

    Raises:
        ConfigurationError: The schema is not registered.
        Unavailable: The broker does not answer; some may be there.

    """
    events = [repair_event(settings, one, tenant) for one in done]
    publish_system(settings, events)
    return [
        {**asdict(one), "store": one.store.value, "event_id": event["event_id"]}
        for one, event in zip(done, events, strict=True)
    ]


def repair_event(settings: Settings, done: Done, tenant: str) -> dict[str, Any]:
    """What the trail says about itself: what was done, by whom."""
    repair = {**asdict(done), "store": done.store.value}
    return command_event(settings, tenant, "repair", ACTION, severity="medium", repair=repair)


def check_tenant(settings: Settings, tenant: str) -> None:
    """The tenant that the repair is recorded under must be there before anything is changed.

    Raises:
        ConfigurationError: None was named, or it is unknown.

    """
    if not tenant:
        raise ConfigurationError(
            "a repair is recorded in the trail: name the tenant by --tenant or AUDIT_SYSTEM_TENANT"
        )
    require_tenants(settings, [tenant], create=False)
