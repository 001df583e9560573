"""The signer's process: every part made, a round at a time, and ended in order.

It needs the ledger as ``audit_signer``, the archive bucket, its key file, and the key provider to
unwrap the seeds in it. Its role shows it no event and no other wrapped key, so with the provider it
could still decrypt nothing. With KMS, a policy may allow it the context ``signing-key`` alone.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import uvloop
from prometheus_client import CollectorRegistry

from pipeline.compliance.checkpoint_store import CheckpointObjects, CheckpointTable
from pipeline.compliance.key_ring import KeyRing
from pipeline.compliance.log_signer import LogSigner
from pipeline.compliance.metrics import SignerMetrics
from pipeline.compliance.signer import LogState, Round, Signer
from pipeline.compliance.signer_ledger import SignerLedger
from pipeline.compliance.tile_store import TileStore
from pipeline.compliance.witnesses import Witnesses, load_witnesses
from pipeline.db.connection import Connection
from pipeline.entrypoints.health import HealthServer
from pipeline.entrypoints.stores import make_objects
from pipeline.keys.provider import load_seed_provider
from pipeline.keys.signing_keys import trusted_keys
from pipeline.logging import configure_logging, log_event
from pipeline.settings import Settings
from sinks.s3 import LockMode

log = logging.getLogger(__name__)

# A round that takes longer than this many intervals, or a minute more, makes it unready.
_PATIENCE_ROUNDS = 3
_PATIENCE_S = 60.0


def sign_once(settings: Settings) -> tuple[Round, list[Mapping[str, str | int]]]:
    """One round over every log; what it did, and each log in a row.

    Raises:
        ConfigurationError: Keys, database or bucket are not set up.
    """
    configure_logging(settings.log_level)

    async def once() -> tuple[Round, list[Mapping[str, str | int]]]:
        async with open_signer_parts(settings, SignerMetrics(CollectorRegistry())) as signer:
            done = await signer.round()
            return done, [_row(state) for state in signer.states.values()]

    return uvloop.run(once())


def run_signer(settings: Settings) -> None:
    """Sign until told to end: SIGTERM or Ctrl-C, after the round that is under way.

    Raises:
        ConfigurationError: Keys, database, bucket or the port.
    """
    configure_logging(settings.log_level)
    uvloop.run(_run(settings))


@asynccontextmanager
async def open_signer_parts(settings: Settings, metrics: SignerMetrics) -> AsyncIterator[Signer]:
    """A signer over its own connections; nothing is asked of a server yet."""
    async with AsyncExitStack() as stack:
        url = settings.signer_database_url.get_secret_value()
        connection = Connection(
            url or settings.database_url.get_secret_value(),
            name="signer",
            timeout_s=settings.request_timeout_s,
        )
        stack.push_async_callback(connection.close)
        objects = make_objects(settings, waits_for_permission=True)
        stack.push_async_callback(objects.close)
        witnesses = Witnesses(
            load_witnesses(settings.witnesses_file), metrics, timeout_s=settings.witness_timeout_s
        )
        await witnesses.open()
        stack.push_async_callback(witnesses.close)
        trusted = settings.verifier_keys_file
        ring = KeyRing(
            settings.signing_key_file,
            lambda: load_seed_provider(settings),
            trusted_keys([], trusted) if trusted is not None else (),
        )
        ledger = SignerLedger(connection)
        log_signer = LogSigner(
            ledger,
            CheckpointTable(connection),
            CheckpointObjects(objects, bucket=settings.s3_archive_bucket),
            TileStore(objects, bucket=settings.s3_archive_bucket),
            witnesses,
            origin_prefix=settings.log_origin,
            now=_now,
        )
        yield Signer(
            ledger,
            log_signer,
            ring.keys,
            metrics,
            lock_mode=cast("LockMode", settings.s3_lock_mode),
            retention_days=settings.retention_days,
            now=_now,
        )


@dataclass(frozen=True, slots=True)
class SignerState:
    """What ``/readyz`` shows: ready once a round went through, and the last one was not long ago."""

    signer: Signer
    interval_s: float

    @property
    def ready(self) -> bool:
        """Whether checkpoints are given: no server is waited for by all."""
        at, last = self.signer.last_round_at, self.signer.last_round
        patience_s = _PATIENCE_ROUNDS * self.interval_s + _PATIENCE_S
        return (
            at is not None
            and last is not None
            and not last.waiting_for
            and time.monotonic() - at < patience_s
        )

    def page(self) -> Mapping[str, object]:
        """``/readyz``, beside ``ready``."""
        now, last = time.monotonic(), self.signer.last_round
        return {
            "logs": [
                {
                    "log": str(state.name),
                    "leaves": state.size,
                    "signed": state.signed,
                    "uncovered_s": round(state.age_s(now), 1),
                    "refused": state.refused,
                }
                for state in list(self.signer.states.values())
            ],
            "refused_logs": list(last.refused) if last else [],
            "waiting_for": list(last.waiting_for) if last else [],
        }


async def _run(settings: Settings) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    metrics = SignerMetrics(CollectorRegistry())
    async with AsyncExitStack() as stack:
        signer = await stack.enter_async_context(open_signer_parts(settings, metrics))
        server = HealthServer(
            settings.http_host,
            settings.signer_http_port,
            registry=metrics.registry,
            state=lambda: SignerState(signer, settings.signer_interval_s),
            port_setting="AUDIT_SIGNER_HTTP_PORT",
        )
        port = await server.open()
        stack.push_async_callback(server.close)
        log_event(log, "signer_started", http_port=port, origin=settings.log_origin)
        while not ended.is_set():
            began = time.monotonic()
            await signer.round()
            rest_s = max(settings.signer_interval_s - (time.monotonic() - began), 0.0)
            try:
                await asyncio.wait_for(ended.wait(), rest_s)
            except TimeoutError:
                continue
        log_event(log, "signer_ends")


def _row(state: LogState) -> Mapping[str, str | int]:
    word = "signed" if state.signed == state.size else "waits for the archive"
    if state.size == 0:
        word = "empty"
    if state.waits_for:
        word = f"waits for {state.waits_for}"
    return {
        "log": str(state.name),
        "leaves": state.size,
        "signed": state.signed,
        "state": "refused" if state.refused else word,
        "why": state.refused,
    }


def _now() -> datetime:
    return datetime.now(UTC)
