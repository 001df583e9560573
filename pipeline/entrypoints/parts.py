"""The parts of a worker that are not Faust's, made from settings and opened in order."""

from __future__ import annotations

import asyncio
import logging
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
from typing import Any, TypeVar

from agents.journal import read_journal
from agents.producer import WorkerProducer
from agents.recovery import Recovery
from agents.tables import Tombstones
from pipeline.codec.registry import SchemaRegistry
from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.entrypoints.letter_keys import letter_keys
from pipeline.entrypoints.preparing import check_registry, make_preparer, open_registry
from pipeline.entrypoints.stores import FollowerMetrics, make_archive, make_index, make_objects
from pipeline.keys.provider import load_provider
from pipeline.keys.subjects import Erased, SubjectKeys
from pipeline.logging import log_event
from pipeline.metrics import Metrics
from pipeline.native import native
from pipeline.settings import Settings
from sinks import bulk
from sinks.archive import ArchiveDestination
from sinks.archive_reader import ArchiveReader
from sinks.backoff import Backoff
from sinks.follower import Follower, FollowerSettings
from sinks.leases import Lease, PostgresLeases
from sinks.ledger import PostgresLedger
from sinks.opening import BlobOpener
from sinks.operations import Operations
from sinks.outage import Outages
from sinks.prepare import Preparer
from sinks.subject_store import SubjectStore
from sinks.vault import Vault

log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(slots=True)
class Parts:
    """What the composition root wires together."""

    settings: Settings
    ledger: PostgresLedger
    store: SubjectStore
    pauses: Operations
    registry: SchemaRegistry
    preparer: Preparer
    producer: WorkerProducer
    recovery: Recovery
    followers: Sequence[Follower]
    retention: dict[str, int]
    leases: PostgresLeases
    lease: Lease
    tombstones: Tombstones
    mac: Callable[[bytes], bytes]  # of the key provider
    openers: Sequence[Callable[[], Awaitable[None]]] = field(default=())

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

    async def check_registry(self) -> None:
        """Compare the registry with what the ledger recorded of it.

        Raises:
            ConfigurationError: It says otherwise.
            Unavailable: One of the two does not answer.
        """
        await check_registry(self.registry, self.pauses.schemas)

    async def learn_tenants(self) -> None:
        """Take the tenants as they are now. Raises ``Unavailable``."""
        wrapped = await self.store.tenants()
        # The key provider may ask a server.
        await asyncio.to_thread(self.preparer.know_tenants, wrapped)
        for tenant in await self.store.list_tenants():
            if tenant.retention_days is not None:
                self.retention[tenant.tenant] = tenant.retention_days

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
        leases = PostgresLeases(url)
        for part in (ledger, store, operations, leases):
            stack.push_async_callback(part.close)
        await until_available(ledger.open, settings)
        tombstones = Tombstones()
        metrics.tombstones.set_function(lambda: float(len(tombstones)))
        producer = WorkerProducer(settings, letter_keys(store, provider))
        stack.push_async_callback(producer.close)
        keys = SubjectKeys(
            provider,
            store,
            producer.journal,
            cache_size=settings.subject_cache_size,
            on_created=metrics.keys_created.inc,
            ring=None if native is None else native.KeyRing(),
            tombstone_of=tombstones.erased_at_us,
        )
        registry = await open_registry(settings, stack)
        preparer = make_preparer(settings, registry, keys, operations.schemas)
        objects = make_objects(settings, waits_for_permission=True)
        retention: dict[str, int] = {}
        vault = Vault(objects, settings.s3_vault_bucket)
        archive = make_archive(settings, metrics, objects, vault, ledger, store, retention)
        stack.push_async_callback(archive.close)
        followers: list[Follower] = []

        lease = _make_lease(leases, keys, followers, archive, metrics)
        tombstones.on_change = lease.hurry

        def keys_epoch() -> int:
            lease.check()
            return lease.epoch

        preparer.lease_epoch = keys_epoch
        client, index = make_index(settings, metrics, keys_epoch)
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
        followers += [
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
            registry,
            preparer,
            producer,
            recovery,
            followers,
            retention,
            leases,
            lease,
            tombstones,
            provider.mac,
            openers=[open_index, archive.open],
        )
        preparer.look_for_tenants = parts.learn_tenants
        await until_available(parts.learn_tenants, settings)
        await until_available(lease.renew, settings)
        stack.push_async_callback(lease.end)
        yield parts


def _make_lease(
    leases: PostgresLeases,
    keys: SubjectKeys,
    followers: Sequence[Follower],
    archive: ArchiveDestination,
    metrics: Metrics,
) -> Lease:
    """What drops keys, and what was opened with them, once an erasure is heard of. ``followers`` are the
    index's, and then those that take nothing opened.
    """

    def apply(erased: Sequence[Erased]) -> None:
        metrics.keys_dropped.inc(keys.erase(erased))
        for follower in followers[:1]:
            follower.start_afresh()
        archive.hurry()
        for follower in followers[1:]:
            follower.wake()

    return Lease(leases, apply)


async def until_available(call: Callable[[], Awaitable[_T]], settings: Settings) -> _T:
    """The call's result, tried again while a server is away.

    Raises:
        Unavailable: It stayed away for ``outage_limit_s``.
    """
    outages = Outages(
        first_s=settings.retry_first_s,
        longest_s=settings.retry_max_s,
        limit_s=settings.outage_limit_s,
        begins="server_waited_for",
        ends="server_waited_for_no_more",
    )
    return await outages.through(call)


async def _unopened(leaves: Any) -> Any:
    """The archive takes sealed leaves as they are."""
    return leaves
