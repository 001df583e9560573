"""The parts of a worker that are not Faust's, made from settings and opened in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from elasticsearch import AsyncElasticsearch

import avro_schemas
from agents.journal import read_journal
from agents.producer import WorkerProducer
from agents.recovery import Recovery
from pipeline.codec.decoders import Decoders
from pipeline.codec.judge import Horizon
from pipeline.codec.limits import Limits
from pipeline.codec.policy import SealingPolicy
from pipeline.codec.registry import SchemaRegistry
from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.entrypoints.letter_keys import letter_keys
from pipeline.keys.provider import load_provider, read_key_file
from pipeline.keys.subjects import SubjectKeys
from pipeline.logging import log_event
from pipeline.metrics import Metrics
from pipeline.native import native
from pipeline.settings import Settings
from pipeline.tls import checked_ca_file, client_context
from sinks import bulk, s3
from sinks.archive import ArchiveDestination
from sinks.archive_reader import ArchiveReader
from sinks.backoff import Backoff
from sinks.documents import Documents
from sinks.follower import Follower, FollowerSettings
from sinks.index import IndexDestination
from sinks.key_escrow import KeyEscrow
from sinks.ledger import PostgresLedger
from sinks.opening import BlobOpener
from sinks.operations import Operations
from sinks.prepare import Preparer
from sinks.progress import Stored
from sinks.s3 import LockMode
from sinks.subject_store import SubjectStore
from sinks.vault import Vault

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_LOOK_AGAIN_S = 1.0
_LEDGER_SERVER = "postgres"


class FollowerMetrics:
    """``sinks.progress.FollowerObserver`` over the worker's metrics and log."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def wrote(self, sink: str, *, seconds: float) -> None:
        self._metrics.wrote(sink, seconds)

    def stored(self, sink: str, log: str, stored: Stored) -> None:  # noqa: ARG002
        self._metrics.durable(
            sink,
            now_ms=int(time.time() * 1000),
            broker_timestamps_ms=stored.broker_timestamps_ms,
        )

    def outage(self, sink: str, *, what: str) -> None:
        if what != _LEDGER_SERVER:  # that the ledger cannot be read is no outage of this store
            self._metrics.sink_outage(sink)
        log_event(log, "follower_waits", level=logging.WARNING, sink=sink, server=what)

    def stopped(self, sink: str, log: str, alert: str) -> None:
        log_event(
            logging.getLogger(__name__),
            "follower_stopped",
            level=logging.ERROR,
            sink=sink,
            log=log,
            why=alert,
        )


@dataclass(slots=True)
class Parts:
    """What the composition root wires together."""

    settings: Settings
    ledger: PostgresLedger
    store: SubjectStore
    pauses: Operations
    preparer: Preparer
    producer: WorkerProducer
    recovery: Recovery
    followers: Sequence[Follower]
    retention: dict[str, int]
    openers: Sequence[Callable[[], Awaitable[None]]] = field(default=())
    tenants_learned_at: float = 0.0

    def following(self) -> Iterator[tuple[str, Callable[[], Coroutine[Any, Any, None]]]]:
        """A task per follower: prepare its store, however long that takes, then follow."""
        for follower, prepare in zip(self.followers, self.openers, strict=True):

            async def follow(
                follower: Follower = follower, prepare: Callable[[], Awaitable[None]] = prepare
            ) -> None:
                await self._prepared(follower.status().sink, prepare)
                await follower.run()

            yield f"follow {follower.status().sink}", follow

    async def _prepared(self, sink: str, prepare: Callable[[], Awaitable[None]]) -> None:
        """A store that is away, or refuses this worker, delays itself alone, for as long as it takes."""
        backoff, said = Backoff(self.settings.retry_first_s, self.settings.retry_max_s), ""
        while True:
            try:
                return await prepare()
            except (Unavailable, ConfigurationError) as refusal:
                if str(refusal) != said:
                    said = str(refusal)
                    log_event(log, "store_waited_for", level=logging.ERROR, sink=sink, why=said)
            await asyncio.sleep(backoff.next_s())

    async def learn_tenants(self) -> None:
        """Take the tenants as they are now. Raises ``Unavailable``."""
        self.tenants_learned_at = time.monotonic()
        wrapped = await self.store.tenants()
        # The key provider may ask a server.
        await asyncio.to_thread(self.preparer.know_tenants, wrapped)
        for tenant in await self.store.list_tenants():
            if tenant.retention_days is not None:
                self.retention[tenant.tenant] = tenant.retention_days

    async def look_for_tenants(self) -> None:
        """The same for an unknown tenant, at most once in ``_LOOK_AGAIN_S``."""
        if time.monotonic() - self.tenants_learned_at > _LOOK_AGAIN_S:
            await self.learn_tenants()

    async def refresh_tenants(self) -> None:
        """Take new tenants every ``tenants_refresh_s``, until cancelled."""
        while True:
            await asyncio.sleep(self.settings.tenants_refresh_s)
            try:
                await self.learn_tenants()
            except Unavailable:
                continue  # the ledger waits for the same server and says so


@asynccontextmanager
async def open_parts(settings: Settings, metrics: Metrics) -> AsyncIterator[Parts]:
    """Make and open the parts; the database is waited for, index and archive are not.

    Raises:
        ConfigurationError: A setting, a privilege or a table is missing.
        Unavailable: The database stayed away for ``outage_limit_s``.
    """
    provider = await until_available(partial(asyncio.to_thread, load_provider, settings), settings)
    async with AsyncExitStack() as stack:
        url = settings.database_url.get_secret_value()
        timeout_s = settings.request_timeout_s
        ledger = PostgresLedger(url, timeout_s=timeout_s, late_after_s=settings.late_after_s)
        store = SubjectStore(url, timeout_s=timeout_s)
        operations = Operations(url, timeout_s=timeout_s)
        for part in (ledger, store, operations):
            stack.push_async_callback(part.close)
        await until_available(ledger.open, settings)
        producer = WorkerProducer(settings, letter_keys(store, provider))
        stack.push_async_callback(producer.close)
        keys = SubjectKeys(
            provider,
            store,
            producer.journal,
            cache_size=settings.subject_cache_size,
            on_created=metrics.keys_created.inc,
            ring=None if native is None else native.KeyRing(),
        )
        preparer = await _preparer(settings, keys, stack)
        objects = s3.connect(
            endpoint_url=settings.s3_endpoint_url,
            region=settings.s3_region,
            access_key_id=settings.s3_access_key_id,
            secret_access_key=settings.s3_secret_access_key.get_secret_value(),
            ca_file=checked_ca_file(settings.s3_ca_file, "AUDIT_S3_CA_FILE"),
            timeout_s=timeout_s,
            waits_for_permission=True,
        )
        retention: dict[str, int] = {}
        vault = Vault(objects, settings.s3_vault_bucket)
        archive = _archive(settings, metrics, objects, vault, ledger, store, retention)
        stack.push_async_callback(archive.close)
        client, index = _index(settings, metrics)
        stack.push_async_callback(index.close)
        bounds = FollowerSettings(
            max_bytes=settings.follower_max_bytes,
            catch_up_events=settings.catch_up_events,
            linger_s=settings.follower_linger_s,
            retry_first_s=settings.retry_first_s,
            retry_max_s=settings.retry_max_s,
        )
        observer = FollowerMetrics(metrics)
        opener = BlobOpener(keys)
        followers = [
            Follower(index, ledger, opener, observer, settings=bounds),
            Follower(archive, ledger, _unopened, observer, settings=bounds),
        ]
        reader = ArchiveReader(
            objects,
            archive_bucket=settings.s3_archive_bucket,
            vault_bucket=settings.s3_vault_bucket,
        )
        recovery = Recovery(
            ledger,
            store,
            reader,
            vault,
            lambda offset: read_journal(settings, offset),
            keys.forget,
        )

        async def open_index() -> None:
            await bulk.prepare_index(
                client,
                settings.index_prefix,
                replicas=settings.index_replicas,
                refresh_s=settings.index_refresh_s,
            )

        parts = Parts(
            settings,
            ledger,
            store,
            operations,
            preparer,
            producer,
            recovery,
            followers,
            retention,
            openers=[open_index, archive.open],
        )
        preparer.look_for_tenants = parts.look_for_tenants
        await until_available(parts.learn_tenants, settings)
        yield parts


async def until_available(call: Callable[[], Awaitable[_T]], settings: Settings) -> _T:
    """The call's result, tried again while a server is away.

    Raises:
        Unavailable: It stayed away for ``outage_limit_s``.
    """
    wait_s, down_since = settings.retry_first_s, time.monotonic()
    while True:
        try:
            return await call()
        except Unavailable as outage:
            if time.monotonic() - down_since > settings.outage_limit_s:
                raise
            log_event(
                log, "server_waited_for", level=logging.WARNING, server=outage.what, why=str(outage)
            )
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, settings.retry_max_s)


def limits_of(settings: Settings) -> Limits:
    """The judge's limits."""
    return Limits(
        event_bytes=settings.event_max_bytes,
        text_chars=settings.text_max_chars,
        label_key_bytes=settings.label_key_max_bytes,
        label_value_bytes=settings.label_value_max_bytes,
        items=settings.items_max,
        changes=settings.changes_max,
    )


def policies() -> dict[str, SealingPolicy]:
    """The sealing policy of each family: what this repository's schemas mark."""
    return {
        family: SealingPolicy.of(
            (leaf.path, leaf.kind, leaf.pii) for leaf in avro_schemas.leaves(family)
        )
        for family in avro_schemas.families()
    }


async def _preparer(settings: Settings, keys: SubjectKeys, stack: AsyncExitStack) -> Preparer:
    registry = SchemaRegistry(
        settings.registry_url,
        username=settings.registry_username,
        password=settings.registry_password.get_secret_value(),
        tls=client_context(settings.registry_ca_file, "AUDIT_REGISTRY_CA_FILE"),
        timeout_s=settings.request_timeout_s,
    )
    await registry.open()
    stack.push_async_callback(registry.close)
    limits = limits_of(settings)
    import_key = None
    if settings.import_key_file is not None:
        import_key = read_key_file(settings.import_key_file, "AUDIT_IMPORT_KEY_FILE")
    return Preparer(
        Decoders(
            registry,
            policies(),
            limits,
            on_compiled=lambda topic, schema: log_event(
                log, "schema_compiled", topic=topic, schema_id=schema
            ),
        ),
        keys,
        limits=limits,
        horizon=Horizon.of(
            future_s=settings.future_tolerance_s,
            retention_days=settings.retention_days,
            import_retention_days=settings.import_retention_days,
        ),
        import_key=import_key,
    )


def _archive(
    settings: Settings,
    metrics: Metrics,
    objects: s3.S3,
    vault: Vault,
    ledger: PostgresLedger,
    store: SubjectStore,
    retention: dict[str, int],
) -> ArchiveDestination:
    return ArchiveDestination(
        objects,
        archive_bucket=settings.s3_archive_bucket,
        vault_bucket=settings.s3_vault_bucket,
        read_ledger=ledger.read,
        ensure_escrowed=KeyEscrow(store, vault).ensure,
        retention_days=lambda tenant: retention.get(tenant, settings.retention_days),
        lock_mode=cast("LockMode", settings.s3_lock_mode),
        max_events=settings.archive_max_events,
        max_bytes=settings.archive_max_bytes,
        max_age_s=settings.archive_max_age_s,
        held_max_bytes=settings.follower_max_bytes // 2,
        on_stored=metrics.archived,
    )


def _index(settings: Settings, metrics: Metrics) -> tuple[AsyncElasticsearch, IndexDestination]:
    client = bulk.connect(
        settings.elasticsearch_url,
        username=settings.elasticsearch_username,
        password=settings.elasticsearch_password.get_secret_value(),
        ca_file=checked_ca_file(settings.elasticsearch_ca_file, "AUDIT_ELASTICSEARCH_CA_FILE"),
        timeout_s=settings.request_timeout_s,
    )
    destination = IndexDestination(
        bulk.BulkClient(client),
        Documents(late_after_s=settings.late_after_s),
        metrics,
        prefix=settings.index_prefix,
        bulk_max_bytes=settings.bulk_max_bytes,
        retry_first_s=settings.retry_first_s,
        retry_max_s=settings.retry_max_s,
    )
    return client, destination


async def _unopened(leaves: Any) -> Any:
    """The archive takes sealed leaves as they are."""
    return leaves
