"""The followers' stores, made from settings: index and archive, and who hears of their progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import cast

from elasticsearch import AsyncElasticsearch

from pipeline.logging import log_event
from pipeline.metrics import Metrics
from pipeline.settings import Settings
from pipeline.tls import checked_ca_file
from sinks import bulk, s3
from sinks.archive import ArchiveDestination
from sinks.documents import Documents
from sinks.index import IndexDestination
from sinks.key_escrow import KeyEscrow
from sinks.ledger import PostgresLedger
from sinks.progress import Stored
from sinks.s3 import LockMode
from sinks.subject_store import SubjectStore
from sinks.vault import Vault

log = logging.getLogger(__name__)

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


def make_objects(settings: Settings, *, waits_for_permission: bool = False) -> s3.S3:
    """The object store; a worker's is waited for when it refuses credentials, too."""
    return s3.connect(
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        ca_file=checked_ca_file(settings.s3_ca_file, "AUDIT_S3_CA_FILE"),
        timeout_s=settings.request_timeout_s,
        waits_for_permission=waits_for_permission,
    )


def make_archive(
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


def connect_index(settings: Settings) -> AsyncElasticsearch:
    """A client of the index; asks nothing yet, and is the caller's to close.

    Raises:
        ConfigurationError: The CA file cannot be used.
    """
    return bulk.connect(
        settings.elasticsearch_url,
        username=settings.elasticsearch_username,
        password=settings.elasticsearch_password.get_secret_value(),
        ca_file=checked_ca_file(settings.elasticsearch_ca_file, "AUDIT_ELASTICSEARCH_CA_FILE"),
        timeout_s=settings.request_timeout_s,
    )


def make_index(
    settings: Settings, metrics: Metrics, keys_epoch: Callable[[], int] = lambda: 0
) -> tuple[AsyncElasticsearch, IndexDestination]:
    client = connect_index(settings)
    destination = IndexDestination(
        bulk.BulkClient(client),
        Documents(late_after_s=settings.late_after_s),
        metrics,
        prefix=settings.index_prefix,
        bulk_max_bytes=settings.bulk_max_bytes,
        retry_first_s=settings.retry_first_s,
        retry_max_s=settings.retry_max_s,
        keys_epoch=keys_epoch,
    )
    return client, destination
