"""Every metric, shown: those of the worker, the relay and the signer; and ``docs/metrics.md`` from the same."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from pipeline.api.metrics import RelayMetrics
from pipeline.compliance.metrics import SignerMetrics
from pipeline.metrics import SECONDS_BUCKETS, SINKS, MetricEntry, Metrics


def catalogue() -> list[MetricEntry]:
    """Every metric in the order of declaration: the worker's, the relay's, the signer's."""
    return [*_worker(), *_relay(), *_signer()]


def catalogue_markdown() -> str:
    """The page ``docs/metrics.md``, whole."""
    lines = [
        "# Metrics",
        "",
        "Written by `audit-trail metrics --output markdown` from `pipeline/metrics.py`, `pipeline/api/metrics.py`",
        "and `pipeline/compliance/metrics.py`.",
        "Worker, relay and signer serve theirs at `/metrics`, with the process's own (`process_*`).",
        f"Sinks are {', '.join(f'`{sink}`' for sink in SINKS)}.",
        f"Histogram buckets (seconds): {', '.join(f'{bound:g}' for bound in SECONDS_BUCKETS)}.",
        "",
        *_table(_worker()),
        "",
        "## The relay's",
        "",
        *_table(_relay()),
        "",
        "## The signer's",
        "",
        *_table(_signer()),
    ]
    return "\n".join([*lines, ""])


def _worker() -> Sequence[MetricEntry]:
    return Metrics(CollectorRegistry()).catalogue


def _relay() -> Sequence[MetricEntry]:
    return RelayMetrics(CollectorRegistry()).catalogue


def _signer() -> Sequence[MetricEntry]:
    return SignerMetrics(CollectorRegistry()).catalogue


def _table(entries: Sequence[MetricEntry]) -> list[str]:
    lines = ["| name | kind | labels | meaning |", "|---|---|---|---|"]
    for entry in entries:
        labels = ", ".join(f"`{label}`" for label in entry.labels)
        lines.append(f"| `{entry.name}` | {entry.kind} | {labels} | {entry.meaning} |")
    return lines
