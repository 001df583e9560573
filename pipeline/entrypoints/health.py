"""The HTTP listener of worker and signer: ``/metrics``, ``/healthz`` (alive), ``/readyz`` (in its place).

It only reads: what it shows comes from callables given by the constructor, which must be quick
and never wait for a server.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from pipeline.domain.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One assigned partition. ``paused`` says why it stands still; empty if it does not."""

    topic: str
    partition: int
    positioned: bool  # sought to the ledger's next_offset
    paused: str = ""


@dataclass(frozen=True, slots=True)
class FollowerState:
    """One follower over all its logs; ``stopped_logs`` contradict the ledger and need a person."""

    sink: str
    lag_records: int
    lag_seconds: float
    lagging: bool  # waits for a server, stopped, or behind for longer than it should be
    stopped_logs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What ``/readyz`` shows.

    ``assigned`` is true once the group has given this worker its partitions, which may be none
    when there are more workers than partitions.
    """

    assigned: bool
    partitions: Sequence[PartitionState] = ()
    followers: Sequence[FollowerState] = ()
    waiting_for: Sequence[str] = field(default=())  # servers that intake waits for

    @property
    def ready(self) -> bool:
        """Assigned, and every partition at its position or paused for a known reason."""
        return self.assigned and all(
            partition.positioned or partition.paused for partition in self.partitions
        )

    def page(self) -> Mapping[str, object]:
        """``/readyz``, beside ``ready``."""
        return {
            "assigned": self.assigned,
            "partitions": [asdict(partition) for partition in self.partitions],
            "paused": [
                f"{partition.topic}/{partition.partition}: {partition.paused}"
                for partition in self.partitions
                if partition.paused
            ],
            "followers": [asdict(follower) for follower in self.followers],
            "lagging": [follower.sink for follower in self.followers if follower.lagging],
            "waiting_for": list(self.waiting_for),
        }


class HealthState(Protocol):
    """What a process says of itself."""

    @property
    def ready(self) -> bool:
        """Whether it does its work."""
        ...

    def page(self) -> Mapping[str, object]:
        """``/readyz``, beside ``ready``."""
        ...


class HealthServer:
    """Life cycle: ``open`` once, then it answers until ``close``. ``port`` 0 takes a free one."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        registry: CollectorRegistry,
        state: Callable[[], HealthState],
        dead: Callable[[], str] = lambda: "",
        port_setting: str = "AUDIT_HTTP_PORT",
    ) -> None:
        """``dead`` says in a few words why the process cannot go on; empty while it can."""
        self._host = host
        self._port = port
        self._registry = registry
        self._state = state
        self._dead = dead
        self._port_setting = port_setting
        self._runner: web.AppRunner | None = None

    async def open(self) -> int:
        """Listen; return the port.

        Raises:
            ConfigurationError: The port is taken or not ours to take.
        """
        runner = web.AppRunner(self.application(), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigurationError(
                f"cannot listen on {self._host}:{self._port} ({os.strerror(error.errno or 0)}):"
                f" set AUDIT_HTTP_HOST or {self._port_setting}"
            ) from error
        self._runner = runner
        return int(runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening; harmless if it never did."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def application(self) -> web.Application:
        """The routes, for whoever serves them otherwise."""
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        return application

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _healthz(self, _request: web.Request) -> web.Response:
        # That this runs at all says that the event loop turns; a stuck one times out the probe.
        dead = self._dead()
        body = {"status": "dead" if dead else "alive", "why": dead}
        return web.json_response(body, status=503 if dead else 200)

    async def _readyz(self, _request: web.Request) -> web.Response:
        state = self._state()
        body = {"ready": state.ready, **state.page()}
        return web.json_response(body, status=200 if state.ready else 503)
