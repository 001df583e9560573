"""The signer's metrics, declared once; labels are from closed sets: topics, partitions, servers, witnesses."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from pipeline.metrics import SECONDS_BUCKETS, MetricEntry


class SignerMetrics:
    """Of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.catalogue: list[MetricEntry] = []
        self.checkpoints = Counter(
            *self._entry(
                "audit_checkpoints_total",
                "counter",
                "Checkpoints that were signed and stored under lock.",
                "topic",
            ),
            registry=registry,
        )
        self.age = Gauge(
            *self._entry(
                "audit_checkpoint_age_seconds",
                "gauge",
                "For how long a log has had leaves that no checkpoint covers; 0 if it has none.",
                "topic",
                "partition",
            ),
            registry=registry,
        )
        self.refused = Gauge(
            *self._entry(
                "audit_signer_refused_logs",
                "gauge",
                "Logs that are not signed because their newest checkpoint does not lead to what the"
                " ledger has: a person is needed.",
            ),
            registry=registry,
        )
        self.outages = Counter(
            *self._entry(
                "audit_signer_outages_total",
                "counter",
                "Times that a log waited for a server (postgres, s3, kms).",
                "server",
            ),
            registry=registry,
        )
        self.round_seconds = Histogram(
            *self._entry(
                "audit_signer_round_seconds",
                "histogram",
                "One look at every log, with its signing.",
            ),
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self.cosignatures = Counter(
            *self._entry(
                "audit_cosignatures_total",
                "counter",
                "Checkpoints that a witness cosigned.",
                "witness",
            ),
            registry=registry,
        )
        self.witness_failures = Counter(
            *self._entry(
                "audit_witness_failures_total",
                "counter",
                "Times that a witness did not answer, or did not cosign.",
                "witness",
            ),
            registry=registry,
        )
        ProcessCollector(registry=registry)

    def signed(self, topic: str) -> None:
        """One checkpoint more is stored under lock."""
        self.checkpoints.labels(topic).inc()

    def watch_age(self, topic: str, partition: int, age_s: Callable[[], float]) -> None:
        """From now on ``age_s`` is asked at each scrape; it must not wait."""
        self.age.labels(topic, str(partition)).set_function(age_s)

    def refuses(self, logs: int) -> None:
        """So many logs are refused now."""
        self.refused.set(logs)

    def outage(self, server: str) -> None:
        """A log could not be signed in this round."""
        self.outages.labels(server).inc()

    def round(self, seconds: float) -> None:
        """One round took so long."""
        self.round_seconds.observe(seconds)

    def cosigned(self, witness: str) -> None:
        """A witness cosigned; ``witness`` is its key's name."""
        self.cosignatures.labels(witness).inc()

    def witness_failed(self, witness: str) -> None:
        """A witness was away, or refused."""
        self.witness_failures.labels(witness).inc()

    def _entry(
        self, name: str, kind: str, meaning: str, *labels: str
    ) -> tuple[str, str, tuple[str, ...]]:
        self.catalogue.append(MetricEntry(name, kind, labels, meaning))
        return name, meaning, labels
