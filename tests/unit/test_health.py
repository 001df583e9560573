"""The worker's listener: alive is not ready, and readiness says who lags."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.health import FollowerState, HealthServer, PartitionState, WorkerState
from pipeline.metrics import Metrics

TOPIC = "audit.raw.authentication"


def asked(
    path: str, state: WorkerState, *, dead: str = "", registry: CollectorRegistry | None = None
) -> tuple[int, str]:
    async def ask() -> tuple[int, str]:
        server = HealthServer(
            "127.0.0.1",
            0,
            registry=registry or CollectorRegistry(),
            state=lambda: state,
            dead=lambda: dead,
        )
        port = await server.open()
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{port}{path}") as answer,
            ):
                return answer.status, await answer.text()
        finally:
            await server.close()

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (WorkerState(assigned=False), 503),
        (WorkerState(assigned=True), 200),
        (WorkerState(True, [PartitionState(TOPIC, 0, positioned=False)]), 503),
        (WorkerState(True, [PartitionState(TOPIC, 0, positioned=True)]), 200),
        (WorkerState(True, [PartitionState(TOPIC, 0, False, paused="chain_broken")]), 200),
    ],
)
def test_ready_once_every_partition_is_in_its_place(state: WorkerState, status: int) -> None:
    assert asked("/readyz", state)[0] == status


def test_readiness_names_the_lagging_follower_and_the_paused_partition() -> None:
    state = WorkerState(
        assigned=True,
        partitions=[PartitionState(TOPIC, 3, positioned=True, paused="dead_letter_ratio")],
        followers=[
            FollowerState("index", 9_000, 42.0, lagging=True),
            FollowerState("archive", 0, 0.0, lagging=False),
        ],
        waiting_for=["registry"],
    )

    _, body = asked("/readyz", state)

    assert '"lagging": ["index"]' in body
    assert '"paused": ["audit.raw.authentication/3: dead_letter_ratio"]' in body
    assert '"waiting_for": ["registry"]' in body


def test_alive_until_it_says_why_not() -> None:
    state = WorkerState(assigned=False)

    assert asked("/healthz", state)[0] == 200
    assert asked("/healthz", state, dead="ingest ended") == (
        503,
        '{"status": "dead", "why": "ingest ended"}',
    )


def test_metrics_are_served() -> None:
    metrics = Metrics(CollectorRegistry(), version="1.2.3")
    metrics.consumed(TOPIC, 5)

    status, body = asked("/metrics", WorkerState(assigned=True), registry=metrics.registry)

    assert status == 200
    assert f'audit_records_consumed_total{{topic="{TOPIC}"}} 5.0' in body
    assert 'version="1.2.3"' in body


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = HealthServer(
            "127.0.0.1", port, registry=CollectorRegistry(), state=lambda: WorkerState(True)
        )

        with pytest.raises(ConfigurationError, match=f"{port}.*AUDIT_HTTP_PORT"):
            asyncio.run(server.open())
