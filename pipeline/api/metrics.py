"""The relay's metrics, declared once; labels are from closed sets, never a tenant or an actor."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from pipeline.metrics import SECONDS_BUCKETS, MetricEntry


class RelayMetrics:
    """Of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.catalogue: list[MetricEntry] = []
        self.events = Counter(
            *self._entry(
                "audit_relay_events_total",
                "counter",
                "Events answered with 202: accepted, or a duplicate of one that was.",
                "result",
            ),
            registry=registry,
        )
        self.refused = Counter(
            *self._entry(
                "audit_relay_refused_total",
                "counter",
                "Requests that were refused, by the name of the problem.",
                "reason",
            ),
            registry=registry,
        )
        self.seconds = Histogram(
            *self._entry(
                "audit_relay_request_seconds",
                "histogram",
                "One batch, from its first byte to its answer, whatever that is.",
            ),
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self.remembered = Gauge(
            *self._entry(
                "audit_relay_remembered_ids",
                "gauge",
                "Event ids that are remembered against replays.",
            ),
            registry=registry,
        )
        ProcessCollector(registry=registry)

    def _entry(
        self, name: str, kind: str, meaning: str, *labels: str
    ) -> tuple[str, str, tuple[str, ...]]:
        self.catalogue.append(MetricEntry(name, kind, labels, meaning))
        return name, meaning, labels
