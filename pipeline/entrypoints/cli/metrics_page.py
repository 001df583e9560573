"""Every metric, shown: those of the worker, the keeper and the relay; and ``docs/metrics.md`` from the same."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from pipeline.api.metrics import RelayMetrics
from pipeline.metrics import SECONDS_BUCKETS, SINKS, KeeperMetrics, MetricEntry, Metrics


def catalogue() -> list[MetricEntry]:
    """Every metric in the order of declaration, the relay's last."""
    return [*_worker(), *_keeper(), *_relay()]


def catalogue_markdown() -> str:
    """The page ``docs/metrics.md``, whole."""
    lines = [
        "# Metrics",
        "",
        "Written by `audit-trail metrics --output markdown` from `pipeline/metrics.py` and `pipeline/api/metrics.py`.",
        "The worker, the keeper and the relay serve theirs at `/metrics`, with the process's own (`process_*`).",
        f"Sinks are {', '.join(f'`{sink}`' for sink in SINKS)}.",
        f"Histogram buckets (seconds): {', '.join(f'{bound:g}' for bound in SECONDS_BUCKETS)}.",
        "",
        *_table(_worker()),
        "",
        "## The keeper's",
        "",
        *_table(_keeper()),
        "",
        "## The relay's",
        "",
        *_table(_relay()),
    ]
    return "\n".join([*lines, ""])


def _worker() -> Sequence[MetricEntry]:
    return Metrics(CollectorRegistry()).catalogue


def _keeper() -> Sequence[MetricEntry]:
    return KeeperMetrics(CollectorRegistry()).catalogue


def _relay() -> Sequence[MetricEntry]:
    return RelayMetrics(CollectorRegistry()).catalogue


def _table(entries: Sequence[MetricEntry]) -> list[str]:
    lines = ["| name | kind | labels | meaning |", "|---|---|---|---|"]
    for entry in entries:
        labels = ", ".join(f"`{label}`" for label in entry.labels)
        lines.append(f"| `{entry.name}` | {entry.kind} | {labels} | {entry.meaning} |")
    return lines
