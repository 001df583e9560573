"""The signer's and the keeper's metrics, declared once; labels are from closed sets: topics, partitions, servers, witnesses, stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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


class KeeperMetrics:
    """The keeper's metrics: what it cut and let go, and when it last went through."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.catalogue: list[MetricEntry] = []
        self.had_a_round = False
        self._redacted = self._add(
            Counter, "audit_keeper_redacted_events_total", "Events that policies cut values from."
        )
        self._freed = self._add(
            Counter,
            "audit_keeper_freed_bytes_total",
            "Bytes that expiry freed (ledger, index, vault).",
            "sink",
        )
        self._failed = self._add(
            Counter,
            "audit_keeper_failed_steps_total",
            "Steps of a round that failed and are tried again; a held one is none.",
        )
        self._round_at = self._add(
            Gauge,
            "audit_keeper_last_round_timestamp_seconds",
            "When the last round ended, since 1970.",
        )

    def round_done(
        self, freed_bytes: Mapping[str, int], *, redacted_events: int, failures: int
    ) -> None:
        """A round went through."""
        self.had_a_round = True
        self._redacted.inc(redacted_events)
        self._failed.inc(failures)
        for store, freed in freed_bytes.items():
            self._freed.labels(store).inc(max(freed, 0))
        self._round_at.set_to_current_time()

    def round_failed(self) -> None:
        """A round did not begin: a server is away."""
        self._failed.inc()

    def _add(self, kind: type[Any], name: str, meaning: str, *labels: str) -> Any:
        self.catalogue.append(MetricEntry(name, kind.__name__.lower(), labels, meaning))
        return kind(name, meaning, labels, registry=self.registry)
