"""Metrics: one catalogue, sound names, bulk observation that equals the one-by-one kind."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from pipeline.api.metrics import RelayMetrics
from pipeline.compliance.metrics import SignerMetrics
from pipeline.domain.errors import Reason
from pipeline.entrypoints.cli.metrics_page import catalogue, catalogue_markdown
from pipeline.metrics import SECONDS_BUCKETS, Metrics

UNITS = ("_total", "_logs", "_seconds", "_bytes", "_records", "_ids", "_info", "_paused")


def test_names_have_the_prefix_and_a_base_unit() -> None:
    for entry in catalogue():
        assert entry.name.startswith("audit_")
        assert entry.name.endswith(UNITS)
        assert (entry.kind == "counter") == entry.name.endswith("_total")


def test_labels_are_from_closed_sets() -> None:
    closed = {
        "topic",
        "partition",
        "reason",
        "sink",
        "server",
        "bucket",
        "version",
        "python",
        "result",
        "witness",  # names of keys in the witnesses' file
    }

    assert {label for entry in catalogue() for label in entry.labels} <= closed


def test_every_name_is_declared_once_and_served() -> None:
    worker, relay = Metrics(CollectorRegistry()), RelayMetrics(CollectorRegistry())
    signer = SignerMetrics(CollectorRegistry())
    names = [entry.name for entry in catalogue()]

    page = b"".join(generate_latest(one.registry) for one in (worker, relay, signer)).decode()

    assert len(names) == len(set(names))
    for name in names:
        assert f"# HELP {name} " in page


def test_the_page_of_metrics_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "metrics.md"

    assert page.read_text() == catalogue_markdown()


@given(waits_ms=st.lists(st.integers(0, 100_000) | st.sampled_from([5, 10, 60_000]), max_size=60))
def test_bulk_observation_equals_one_by_one(waits_ms: list[int]) -> None:
    now_ms = 10_000_000
    metrics = Metrics(CollectorRegistry())
    plain = CollectorRegistry()
    reference = Histogram(
        "audit_end_to_end_seconds", "x", ["sink"], buckets=SECONDS_BUCKETS, registry=plain
    )

    metrics.durable(
        "ledger", now_ms=now_ms, broker_timestamps_ms=[now_ms - wait for wait in waits_ms]
    )
    for wait in waits_ms:
        reference.labels("ledger").observe(wait / 1000)

    for suffix in ("_bucket", "_count"):
        for bound in [*map(repr, SECONDS_BUCKETS), "+Inf"] if suffix == "_bucket" else [None]:
            labels = {"sink": "ledger"} | ({"le": bound} if bound else {})
            name = f"audit_end_to_end_seconds{suffix}"
            expected = plain.get_sample_value(name, labels) or None
            assert (metrics.registry.get_sample_value(name, labels) or None) == expected


def test_a_broker_clock_ahead_of_ours_counts_as_zero() -> None:
    metrics = Metrics(CollectorRegistry())

    metrics.durable("index", now_ms=1_000, broker_timestamps_ms=[5_000])

    labels = {"sink": "index", "le": "0.005"}
    assert metrics.registry.get_sample_value("audit_end_to_end_seconds_bucket", labels) == 1.0


def test_a_revoked_partition_leaves_no_series() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.consumer_lag("audit.raw.authentication", 1, 10)
    metrics.paused("audit.raw.authentication", 1, "dead_letter_ratio")
    metrics.paused("audit.raw.authentication", 11, "dead_letter_ratio")

    metrics.revoked("audit.raw.authentication", 1)

    page = generate_latest(metrics.registry).decode()
    assert 'partition="1"' not in page
    assert 'partition="11"' in page


def test_dead_letters_are_counted_by_reason() -> None:
    metrics = Metrics(CollectorRegistry())

    metrics.dead_lettered("t", [Reason.EXPIRED, Reason.TRUNCATED, Reason.EXPIRED])

    count = metrics.registry.get_sample_value
    name = "audit_records_dead_lettered_total"
    assert count(name, {"topic": "t", "reason": "expired"}) == 2.0
    assert count(name, {"topic": "t", "reason": "truncated"}) == 1.0
