"""The keeper: applies policies, retention and holds, again and again; a process of its own.

Not in the worker: whoever ingests must not be able to remove. The worker has the writer's role, which
can change nothing; the keeper has the redactor's, which can add nothing. It holds nothing that matters:
each round begins with what is in the tables and buckets. One step that is held, or whose servers are
away, delays no other; the next round tries it again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from pipeline.compliance.again import bring_back, carry_out
from pipeline.compliance.expiry import RETENTION_PASSED
from pipeline.compliance.metrics import KeeperMetrics
from pipeline.compliance.policy_run import PolicyRun
from pipeline.domain.errors import AuditTrailError, ConfigurationError, Held
from pipeline.entrypoints.cli.keeping import Tools, expiring, open_tools, policy_store
from pipeline.logging import configure_logging, log_event

if TYPE_CHECKING:
    from pipeline.settings import Settings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class RoundOutcome:
    """What one round did. ``failures``: what a person or the next round must see to."""

    redacted_events: int = 0
    expired: int = 0
    freed_bytes: dict[str, int] = field(default_factory=dict)
    holds_applied: int = 0
    held: int = 0
    failures: list[str] = field(default_factory=list)

    def free(self, counts: dict[str, int]) -> None:
        """Add what an expiry freed, by store."""
        for store in ("ledger", "index", "vault"):
            self.freed_bytes[store] = self.freed_bytes.get(store, 0) + counts.get(
                f"{store}_bytes", 0
            )


async def keep_once(tools: Tools) -> RoundOutcome:
    """One round: what was left undone, holds, policies, expiry. Never raises for a single step."""
    outcome = RoundOutcome()
    steps: list[tuple[str, Callable[[Tools, RoundOutcome], Awaitable[None]]]] = [
        ("unfinished requests", _unfinished),
        ("holds", _holds),
        ("policies", _policies),
        ("expiry", _expiry),
    ]
    for name, step in steps:
        await _guarded(name, outcome, lambda step=step: step(tools, outcome))  # type: ignore[misc]
    log_event(
        log,
        "kept",
        redacted_events=outcome.redacted_events,
        expired=outcome.expired,
        freed_bytes=sum(outcome.freed_bytes.values()),
        held=outcome.held,
        failures=len(outcome.failures),
    )
    return outcome


def run_keeper(settings: Settings) -> int:
    """Keep until told to end (SIGTERM); the process's exit status."""
    configure_logging(settings.log_level)
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    metrics = KeeperMetrics(CollectorRegistry())
    server = await _serve(settings, metrics)
    try:
        while not ended.is_set():
            try:
                async with open_tools(settings) as tools:
                    outcome = await keep_once(tools)
                metrics.round_done(
                    outcome.freed_bytes,
                    redacted_events=outcome.redacted_events,
                    failures=len(outcome.failures),
                )
            except ConfigurationError:
                raise
            except AuditTrailError as error:
                metrics.round_failed()
                log_event(log, "keeper_waits", level=logging.WARNING, error=error)
            try:
                await asyncio.wait_for(ended.wait(), settings.keeper_interval_s)
            except TimeoutError:
                continue
    finally:
        await server.cleanup()
    return 0


async def _unfinished(tools: Tools, outcome: RoundOutcome) -> None:
    work = await expiring(tools)
    back = await bring_back(tools.keeping, work, tools.hold_copies)
    known = set(back.requests)
    unfinished = list(back.requests) + [
        request.request_id
        for request in await tools.keeping.removals.all()
        if request.state != "done" and request.request_id not in known
    ]
    for request_id in unfinished:

        async def again(request_id: UUID = request_id) -> None:
            await carry_out(tools.keeping, work, request_id)

        await _guarded(f"request {request_id}", outcome, again)


async def _holds(tools: Tools, outcome: RoundOutcome) -> None:
    if await tools.keeping.holds.all():
        applied = await tools.archive_holds.apply(await tools.keeping.candidates.logs())
        outcome.holds_applied = applied.held + applied.freed


async def _policies(tools: Tools, outcome: RoundOutcome) -> None:
    async with policy_store(tools.settings) as store:
        run = PolicyRun(tools.keeping, store)
        for policy in await store.all():

            async def apply(policy=policy) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
                done = await run.apply(policy)
                outcome.redacted_events += done.events
                outcome.held += done.held

            await _guarded(f"policy {policy.name}", outcome, apply)


async def _expiry(tools: Tools, outcome: RoundOutcome) -> None:
    work = await expiring(tools)
    for one in await work.assess():
        if one.state != "ready":
            outcome.held += one.state == "held"
            continue

        async def let_go(one=one) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
            request = await work.let_go(one, reason=RETENTION_PASSED)
            if request is not None:
                outcome.expired += 1
                outcome.free({name: int(count) for name, count in request.counts.items()})

        await _guarded(f"expiry of {one.due.scope.month:%Y-%m}", outcome, let_go)


async def _guarded(what: str, outcome: RoundOutcome, step: Callable[[], Awaitable[None]]) -> None:
    """One step: what stops it is said, and the others go on."""
    try:
        await step()
    except Held as held:
        outcome.held += 1
        log_event(log, "kept_back_by_hold", what=what, why=str(held))
    except AuditTrailError as error:
        outcome.failures.append(f"{what}: {error}")
        log_event(log, "keeping_failed", level=logging.ERROR, what=what, error=error)


async def _serve(settings: Settings, metrics: KeeperMetrics) -> web.AppRunner:
    """``/metrics`` and ``/healthz``; ``/readyz`` once a round went through."""

    async def show(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(metrics.registry), headers={"Content-Type": content_type})

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_request: web.Request) -> web.Response:
        ready = metrics.had_a_round
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    application = web.Application()
    application.router.add_get("/metrics", show)
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.http_host, settings.keeper_http_port).start()
    except OSError:
        await runner.cleanup()
        raise ConfigurationError(
            f"cannot listen on {settings.http_host}:{settings.keeper_http_port}:"
            " set AUDIT_HTTP_HOST or AUDIT_KEEPER_HTTP_PORT"
        ) from None
    return runner
