"""Registry, search index and buckets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.checks import Finding
from pipeline.entrypoints.cli.stores import object_store, searching

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from sinks.operations import Operations

# Elasticsearch stops placing shards at 85 % by itself and makes indices read-only at 95 %.
DISK_WARN_PERCENT: Final = 80.0
DISK_FAIL_PERCENT: Final = 92.0
MIGRATE: Final = "run: audit-trail migrate"


def registry(settings: Settings) -> Sequence[Finding]:
    """It answers, has this release's schemas, and refuses incompatible ones."""
    from pipeline.entrypoints.cli import schemas
    from pipeline.entrypoints.cli.registry import COMPATIBILITY, RegistryClient

    with RegistryClient(settings) as client:
        count = len(client.subjects())
        states = [schemas.check(client, candidate) for candidate in schemas.shipped()]
    findings = [Finding("registry", "ok", f"{count} subjects")]
    for state in states:
        name = f"schema {state.family}"
        if state.state == "incompatible":
            findings.append(Finding(name, "fail", state.detail, "run: audit-trail schemas check"))
        elif state.state != "registered":
            advice = "run: audit-trail schemas register"
            findings.append(Finding(name, "fail", "not registered", advice))
        elif state.rule != COMPATIBILITY:
            detail = f"compatibility {state.rule or 'of the registry'}, not {COMPATIBILITY}"
            findings.append(Finding(name, "warn", detail, "run: audit-trail schemas register"))
    findings += _recorded(settings)
    if len(findings) == 1:
        findings.append(Finding("schemas", "ok", f"{len(states)} registered, {COMPATIBILITY}"))
    return findings


def _recorded(settings: Settings) -> Sequence[Finding]:
    """What the registry says otherwise than the ledger recorded of it: a worker refuses to start."""
    from contextlib import AsyncExitStack

    from pipeline.entrypoints.cli.stores import call_operations
    from pipeline.entrypoints.preparing import check_registry, open_registry

    async def check(operations: Operations) -> None:
        async with AsyncExitStack() as stack:
            await check_registry(await open_registry(settings, stack), operations.schemas)

    try:
        call_operations(settings, check)
    except ConfigurationError as error:
        return [Finding("recorded schemas", "fail", str(error), "bring back the registry's data")]
    return []


def search(settings: Settings) -> Sequence[Finding]:
    """It answers, is well, and has room."""
    with searching(settings) as client:
        health: Any = client.cluster.health()
        nodes: Any = client.nodes.stats(metric="fs", filter_path="nodes.*.fs.total")
    status = {"green": "ok", "yellow": "warn"}.get(health["status"], "fail")
    detail = f"{health['status']}, {health['number_of_nodes']} nodes"
    advice = "" if status == "ok" else "shards are not placed: look at the cluster's own log"
    findings = [Finding("elasticsearch", status, detail, advice)]  # type: ignore[arg-type]
    used = [_used_percent(node["fs"]["total"]) for node in nodes.get("nodes", {}).values()]
    if used:
        findings.append(_disk(max(used)))
    return findings


def template(settings: Settings) -> Sequence[Finding]:
    """The index template is in force, and nothing makes indices without it."""
    from sinks.index_fields import index_template

    with searching(settings) as client:
        found = client.indices.exists_index_template(name=settings.index_prefix)
        would_be: Any = client.indices.simulate_index_template(
            name=f"{settings.index_prefix}-2000.01"
        )
    if not found:
        return [Finding("index template", "fail", "missing", MIGRATE)]
    wanted = index_template(
        settings.index_prefix,
        replicas=settings.index_replicas,
        refresh_s=settings.index_refresh_s,
    )
    if would_be["template"]["mappings"] != wanted["template"]["mappings"]:
        return [Finding("index template", "fail", "another mapping is in force", MIGRATE)]
    return [Finding("index template", "ok", f"{settings.index_prefix}-* as this release has it")]


def buckets(settings: Settings) -> Sequence[Finding]:
    """The archive keeps and locks versions; the vault does neither."""
    from sinks.buckets import check_buckets

    archive, vault = settings.s3_archive_bucket, settings.s3_vault_bucket

    async def check() -> None:
        async with object_store(settings) as store:
            await check_buckets(store, archive=archive, vault=vault)

    asyncio.run(check())
    detail = f"{archive} keeps and locks versions, {vault} does not"
    findings = [Finding("s3 buckets", "ok", detail)]
    if settings.s3_lock_mode != "COMPLIANCE":
        advice = "in production set AUDIT_S3_LOCK_MODE=COMPLIANCE"
        detail = f"{settings.s3_lock_mode}: a privileged user can lift it"
        findings.append(Finding("s3 lock mode", "warn", detail, advice))
    return findings


def _used_percent(total: dict[str, int]) -> float:
    return 100.0 * (1 - total["available_in_bytes"] / total["total_in_bytes"])


def _disk(used: float) -> Finding:
    detail = f"fullest node: {used:.0f} % used"
    if used >= DISK_FAIL_PERCENT:
        advice = "make room: indices become read-only at 95 %"
        return Finding("elasticsearch disk", "fail", detail, advice)
    if used >= DISK_WARN_PERCENT:
        return Finding("elasticsearch disk", "warn", detail, "make room soon")
    return Finding("elasticsearch disk", "ok", detail)
