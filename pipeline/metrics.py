"""Every metric of the product, declared once: name, meaning, unit, labels.

``Metrics`` is made in the composition root and handed on; nothing is registered on import. Label
values come from closed sets (sinks, topics, partitions, reasons), never from events. The relay's are
declared in ``pipeline.api.metrics``; ``docs/metrics.md`` is written from both.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from pipeline.domain.errors import Reason

SINKS = ("ledger", "index", "archive")
# From one fast commit (5 ms) to an outage that somebody has noticed (60 s).
SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class MetricEntry:
    """One line of the catalogue."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Metrics:
    """The process's metrics. The helpers are what the pipeline calls; attributes are for tests.

    Cheap enough for once per batch; nothing here is meant to be called once per event.
    """

    def __init__(self, registry: CollectorRegistry, *, version: str = "0") -> None:
        self.registry = registry
        self.catalogue: list[MetricEntry] = []
        self._declare_intake()
        self._declare_sinks()
        self._declare_lag()
        info = Info("audit_build", "What runs here.", registry=registry)
        info.info({"version": version, "python": platform.python_version()})
        self.catalogue.append(
            MetricEntry("audit_build_info", "info", ("version", "python"), "What runs here.")
        )
        ProcessCollector(registry=registry)

    def _declare_intake(self) -> None:
        self.records_consumed = self._counter(
            "audit_records_consumed_total", "Kafka records read from a raw topic.", "topic"
        )
        self.events_accepted = self._counter(
            "audit_events_accepted_total", "Events that became a leaf of the ledger.", "topic"
        )
        self.events_duplicate = self._counter(
            "audit_events_duplicate_total",
            "Events that the ledger held already, same id and same leaf hash.",
            "topic",
        )
        self.records_dead_lettered = self._counter(
            "audit_records_dead_lettered_total",
            "Records acknowledged in the dead letter topic; repeats after a crash count again.",
            "topic",
            "reason",
        )
        self.intake_outages = self._counter(
            "audit_intake_outages_total",
            "Times that intake began to wait for a server (postgres, registry, kafka).",
            "server",
        )
        self.intake_queue_bytes = self._gauge(
            "audit_intake_queue_bytes", "Keys and values fetched and not yet in the ledger."
        )
        self.partition_paused = self._gauge(
            "audit_partition_paused",
            "1 while a partition is paused until a person runs `audit-trail resume`.",
            "topic",
            "partition",
            "reason",
        )
        self.keys_created = self._counter(
            "audit_keys_created_total", "Keys made for data subjects that were new."
        )

        self.tombstones = self._gauge(
            "audit_tombstone_ids",
            "Identifiers of people who were erased, as this worker holds them.",
        )
        self.keys_dropped = self._counter(
            "audit_keys_dropped_total", "Keys in memory that were dropped for an erasure."
        )

    def _declare_sinks(self) -> None:
        self.ledger_transaction_seconds = self._histogram(
            "audit_ledger_transaction_seconds", "One ledger transaction, from begin to commit."
        )
        self.sink_write_seconds = self._histogram(
            "audit_sink_write_seconds", "One write call to a store, whatever it holds.", "sink"
        )
        self.sink_outages = self._counter(
            "audit_sink_outages_total",
            "Times that this store's server began to be unavailable.",
            "sink",
        )
        self.index_refusals = self._counter(
            "audit_index_refusals_total", "Documents that the index refused; stored as a stub."
        )
        self.index_retries = self._counter(
            "audit_index_retries_total", "Documents sent again after a 429 or 503 for that one."
        )
        self.archive_objects = self._counter(
            "audit_archive_objects_total", "Objects put.", "bucket"
        )
        self.archive_bytes = self._counter(
            "audit_archive_bytes_total", "Bytes put, compressed.", "bucket"
        )
        self.follower_held_bytes = self._gauge(
            "audit_follower_held_bytes", "Events that a follower holds in memory.", "sink"
        )

    def _declare_lag(self) -> None:
        self.consumer_lag_records = self._gauge(
            "audit_consumer_lag_records",
            "High watermark less next_offset of the ledger.",
            "topic",
            "partition",
        )
        self.follower_lag_records = self._gauge(
            "audit_follower_lag_records", "Leaves in the ledger and not yet in this store.", "sink"
        )
        self.durable_lag_seconds = self._gauge(
            "audit_durable_lag_seconds",
            "Age of the oldest event that this store should hold and does not; 0 if there is none. Of the"
            " ledger also for how long a partition has stood still with records left.",
            "sink",
        )
        self.end_to_end_seconds = _WeightedHistogram(
            "audit_end_to_end_seconds",
            "From the broker's timestamp of a record to its being durable in this store.",
            SECONDS_BUCKETS,
        )
        self.registry.register(self.end_to_end_seconds)
        self._enter(
            "audit_end_to_end_seconds", "histogram", ("sink",), self.end_to_end_seconds.meaning
        )

    # --- what the pipeline calls ---

    def consumed(self, topic: str, records: int) -> None:
        """``records`` were read from ``topic``."""
        self.records_consumed.labels(topic).inc(records)

    def stored(self, topic: str, *, accepted: int, duplicates: int) -> None:
        """One ledger transaction's outcome for one log of ``topic``."""
        if accepted:
            self.events_accepted.labels(topic).inc(accepted)
        if duplicates:
            self.events_duplicate.labels(topic).inc(duplicates)

    def dead_lettered(self, topic: str, reasons: Iterable[Reason]) -> None:
        """These letters are acknowledged."""
        for reason, letters in Tally(reasons).items():
            self.records_dead_lettered.labels(topic, reason.value).inc(letters)

    def committed(self, seconds: float) -> None:
        """One ledger transaction took so long."""
        self.ledger_transaction_seconds.observe(seconds)

    def wrote(self, sink: str, seconds: float) -> None:
        """One write call to a store returned after so long."""
        self.sink_write_seconds.labels(sink).observe(seconds)

    def sink_outage(self, sink: str) -> None:
        """A write call ended in ``Unavailable``."""
        self.sink_outages.labels(sink).inc()

    def intake_outage(self, server: str) -> None:
        """Intake begins to wait for a server; call it once per wait, not once per retry."""
        self.intake_outages.labels(server).inc()

    def follower(self, sink: str, *, lag_records: int, lag_seconds: float, held_bytes: int) -> None:
        """A follower's state as it is now, over all its logs."""
        self.follower_lag_records.labels(sink).set(lag_records)
        self.durable_lag_seconds.labels(sink).set(lag_seconds)
        self.follower_held_bytes.labels(sink).set(held_bytes)

    def ledger(self, *, lag_seconds: float) -> None:
        """The age of the oldest record that was fetched and is not in the ledger, or for how long a
        partition has stood still with records left.
        """
        self.durable_lag_seconds.labels("ledger").set(lag_seconds)

    def durable(self, sink: str, *, now_ms: int, broker_timestamps_ms: Iterable[int]) -> None:
        """These events are durable in ``sink`` since ``now_ms``; costs by distinct timestamp."""
        for timestamp_ms, events in Tally(broker_timestamps_ms).items():
            # A producer may set any time: a clock ahead of ours counts as 0, not as negative.
            self.end_to_end_seconds.observe(sink, max(now_ms - timestamp_ms, 0) / 1000, events)

    def consumer_lag(self, topic: str, partition: int, records: int) -> None:
        """High watermark less ``next_offset``."""
        self.consumer_lag_records.labels(topic, str(partition)).set(records)

    def paused(self, topic: str, partition: int, reason: str) -> None:
        """A partition stands still until a person resumes it."""
        self.partition_paused.labels(topic, str(partition), reason).set(1)

    def resumed(self, topic: str, partition: int) -> None:
        """Whatever the reason was."""
        self.partition_paused.remove_by_labels({"topic": topic, "partition": str(partition)})

    def revoked(self, topic: str, partition: int) -> None:
        """Another worker reports on this partition from now on: drop its series."""
        self.resumed(topic, partition)
        self.consumer_lag_records.remove_by_labels({"topic": topic, "partition": str(partition)})

    def index_refused(self, documents: int = 1) -> None:
        """Documents were stored as stubs."""
        self.index_refusals.inc(documents)

    def index_retried(self, documents: int = 1) -> None:
        """Documents are sent again because the index was busy."""
        self.index_retries.inc(documents)

    def archived(self, bucket: str, size_bytes: int) -> None:
        """One object was put; ``bucket`` is its role, ``archive`` or ``vault``."""
        self.archive_objects.labels(bucket).inc()
        self.archive_bytes.labels(bucket).inc(size_bytes)

    # --- declaring ---

    def _enter(self, name: str, kind: str, labels: tuple[str, ...], meaning: str) -> None:
        self.catalogue.append(MetricEntry(name, kind, labels, meaning))

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self._enter(name, "counter", labels, meaning)
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self._enter(name, "gauge", labels, meaning)
        return Gauge(name, meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        self._enter(name, "histogram", labels, meaning)
        return Histogram(name, meaning, labels, registry=self.registry, buckets=SECONDS_BUCKETS)


class _WeightedHistogram(Collector):
    """A histogram by sink that takes many equal observations in one call.

    The client library's takes one value a call (about 1 µs), which once per event and store would
    be a tenth of the worker's whole budget.
    """

    def __init__(self, name: str, meaning: str, bounds: Sequence[float]) -> None:
        self.name = name
        self.meaning = meaning
        self._bounds = tuple(bounds)
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, sink: str, seconds: float, times: int) -> None:
        counts = self._counts.setdefault(sink, [0] * (len(self._bounds) + 1))
        counts[bisect_left(self._bounds, seconds)] += times
        self._sums[sink] = self._sums.get(sink, 0.0) + seconds * times

    def count(self, sink: str) -> int:
        """Events observed."""
        return sum(self._counts.get(sink, ()))

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self.name, self.meaning, labels=["sink"])
        labels = [*(repr(bound) for bound in self._bounds), "+Inf"]
        for sink, counts in self._counts.items():
            cumulated = [float(total) for total in accumulate(counts)]
            family.add_metric(
                [sink],
                buckets=list(zip(labels, cumulated, strict=True)),
                sum_value=self._sums[sink],
            )
        yield family
