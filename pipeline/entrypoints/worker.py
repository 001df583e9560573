"""The worker: every part made, connected and watched. The only place that knows them all.

It ends with 0 when told to (SIGTERM, or drained), with 1 when a part failed in a way that a restart
may cure: its supervisor starts it again and the ledger says where to go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

import agents.fetching
import agents.inflate
from agents import ingest, redaction
from agents.app import AuditApp, make_app
from agents.erasures import check_erasures
from agents.identity import TopicFacts
from agents.places import Waits
from agents.positions import Positions
from agents.tables import watch_recovery
from agents.transport import settle
from agents.watching import BROKER, Watch
from pipeline.domain.errors import AuditTrailError, ConfigurationError, Unavailable
from pipeline.domain.logs import REDACTIONS_TOPIC, changelog_topic
from pipeline.entrypoints.ending import Ending
from pipeline.entrypoints.health import HealthServer
from pipeline.entrypoints.memory import configure_memory, keep_for_good, keep_tidy
from pipeline.entrypoints.parts import Parts, open_parts, until_available
from pipeline.entrypoints.worker_state import worker_state
from pipeline.logging import configure_logging, log_event
from pipeline.metrics import Metrics
from pipeline.settings import Settings
from sinks.delivery import Delivery
from sinks.flight import DeliveryLimits

log = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_FAILED = 1
_DRAIN_LOOK_S = 0.2
_DRAIN_ARCHIVE_AGE_S = 0.5


def run_worker(settings: Settings) -> int:
    """Run one worker until it is told to end; the process's exit status."""
    configure_logging(settings.log_level)
    if settings.drain:  # nothing more will come that an archive object could wait for
        age_s = min(settings.archive_max_age_s, _DRAIN_ARCHIVE_AGE_S)
        settings = settings.model_copy(update={"archive_max_age_s": age_s})
    configure_memory()
    agents.inflate.install(settings.inflate_max_bytes)
    agents.fetching.install(settings.inflate_max_bytes)
    try:
        return uvloop.run(_run(settings))
    except ConfigurationError:
        raise
    except AuditTrailError as error:
        log_event(log, "worker_failed", level=logging.ERROR, error=error)
        return EXIT_FAILED


async def _run(settings: Settings) -> int:
    ending = Ending()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.now)
    async with AsyncExitStack() as stack:
        try:
            with contextlib.suppress(asyncio.CancelledError):  # by ``ending``, which knows why
                await _start(settings, stack, ending)
            await ending.wait()
        except Exception as error:
            log_event(log, "worker_crashed", level=logging.ERROR, error=error)
            if isinstance(error, ConfigurationError):
                raise
            return EXIT_FAILED
        log_event(log, "worker_ends")
    return EXIT_OK


async def _start(settings: Settings, stack: AsyncExitStack, ending: Ending) -> None:
    """Open every part, waiting for servers that are away, and start what runs until the end."""
    metrics = Metrics(CollectorRegistry(), version=version("audit-trail-pipeline"))
    parts = await stack.enter_async_context(open_parts(settings, metrics))
    topics = TopicFacts(settings)
    stack.push_async_callback(topics.close)
    await until_available(topics.reach, settings)
    own = [REDACTIONS_TOPIC, changelog_topic(settings.consumer_group)]
    await until_available(partial(topics.require, own), settings)
    await until_available(partial(check_erasures, settings, parts.leases, parts.mac), settings)
    positions, delivery, watch = _connect(settings, parts, topics, metrics, ending)
    app = await stack.enter_async_context(
        _running_app(settings, positions, ending, delivery, parts)
    )
    await _serve(settings, stack, metrics, positions, delivery, parts, app)
    keep_for_good()
    broker_away = partial(delivery.waiting_for.__contains__, BROKER)
    tasks: list[tuple[str, Callable[[], Coroutine[Any, Any, Any]]]] = [
        ("prepare", partial(_prepare, parts, delivery)),
        ("write", delivery.run_write),
        ("watch partitions", watch.partitions),
        ("watch topics", watch.topics),
        ("watch ledger", watch.ledger),
        ("tenants", parts.refresh_tenants),
        ("lease", parts.lease.run),
        ("memory", keep_tidy),
        ("tables", partial(watch_recovery, app, settings.recovery_limit_s, broker_away)),
        *parts.following(),
    ]
    for name, run in tasks:
        task = asyncio.create_task(run(), name=name)
        stack.push_async_callback(settle, task)
        ending.watch(task)
    if settings.drain:
        drained = asyncio.create_task(_until_drained(positions, delivery, parts, ending))
        stack.push_async_callback(settle, drained)
    ending.started()


async def _prepare(parts: Parts, delivery: Delivery) -> None:
    """Decode nothing by a registry that is not the one whose ids the ledger has."""
    await delivery.through_outages(parts.check_registry)
    await delivery.run_prepare()


def _connect(
    settings: Settings, parts: Parts, topics: TopicFacts, metrics: Metrics, ending: Ending
) -> tuple[Positions, Delivery, Watch]:
    waits = Waits(settings.retry_first_s, settings.retry_max_s, settings.outage_limit_s)
    positions = Positions(
        parts.ledger,
        parts.followers,
        parts.pauses,
        topics=topics,
        recovery=parts.recovery,
        waits=waits,
        metrics=metrics,
        crash=ending.because,
    )
    delivery = Delivery(
        parts.ledger,
        parts.preparer,
        parts.producer.dead_letters,
        parts.followers,
        positions,
        DeliveryLimits(
            batch_events=settings.batch_max_events,
            queue_bytes=settings.intake_max_bytes,
            retry_first_s=settings.retry_first_s,
            retry_max_s=settings.retry_max_s,
            outage_limit_s=settings.outage_limit_s,
            dead_letter_ratio=settings.dead_letter_ratio,
            dead_letter_window=settings.dead_letter_window,
            pace_share=settings.follower_pace_share,
            pace_patience_s=settings.follower_pace_patience_s,
        ),
        metrics,
    )
    positions.delivery = delivery
    watch = Watch(
        positions,
        parts.followers,
        parts.pauses,
        topics,
        waits,
        metrics,
        delivery=delivery,
        crash=ending.because,
    )
    return positions, delivery, watch


@asynccontextmanager
async def _running_app(
    settings: Settings,
    positions: Positions,
    ending: Ending,
    delivery: Delivery,
    parts: Parts,
) -> AsyncIterator[AuditApp]:
    """The Faust app, started; a broker that is not there yet is waited for."""
    with tempfile.TemporaryDirectory(prefix="audit-trail-") as datadir:
        while True:
            app = make_app(settings, positions, datadir=datadir)
            ingest.register(app, delivery)
            redaction.register(
                app, parts.tombstones, parts.leases.erased_at_us, parts.mac, parts.lease.hurry
            )
            positions.consumer = app.batch_consumer
            try:
                await app.start()
                break
            except OSError as error:
                log_event(log, "broker_waited_for", level=logging.WARNING, error=error)
                await asyncio.sleep(settings.retry_max_s)
            except asyncio.CancelledError:
                await _stop(app, settings)  # its thread would keep the process
                raise
        configure_logging(settings.log_level)  # Faust replaced the handlers
        stopped = asyncio.create_task(app.wait_until_stopped(), name="faust")

        def ended(_task: asyncio.Task[Any]) -> None:
            ending.because(app.crash_reason or Unavailable("kafka", "the consumer ended"))

        stopped.add_done_callback(ended)
        try:
            yield app
        finally:
            stopped.remove_done_callback(ended)
            await positions.close()  # first: placing asks the consumer, whose thread ends now
            await _stop(app, settings)
            await settle(stopped)


async def _stop(app: AuditApp, settings: Settings) -> None:
    with contextlib.suppress(Exception):
        await asyncio.wait_for(app.stop(), timeout=settings.session_timeout_s)


async def _serve(
    settings: Settings,
    stack: AsyncExitStack,
    metrics: Metrics,
    positions: Positions,
    delivery: Delivery,
    parts: Parts,
    app: AuditApp,
) -> None:
    server = HealthServer(
        settings.http_host,
        settings.http_port,
        registry=metrics.registry,
        state=lambda: worker_state(
            positions,
            delivery,
            parts.followers,
            lagging_s=settings.follower_lagging_s + settings.archive_max_age_s,
        ),
        dead=lambda: "the Faust app stopped" if app.should_stop else "",
    )
    port = await server.open()
    stack.push_async_callback(server.close)
    log_event(log, "worker_started", http_port=port)


async def _until_drained(
    positions: Positions, delivery: Delivery, parts: Parts, ending: Ending
) -> None:
    """End once every partition and every follower is at its end, twice in a row."""
    seen_at_end = 0
    while seen_at_end < 2:
        await asyncio.sleep(_DRAIN_LOOK_S)
        places = positions.places()
        placed = positions.was_assigned and all(
            place.still or (place.placed and positions.lag(tp) == 0) for tp, place in places.items()
        )
        followed = all(follower.status().caught_up for follower in parts.followers)
        seen_at_end = seen_at_end + 1 if placed and delivery.idle and followed else 0
    log_event(log, "worker_drained")
    ending.now()
