"""The server that the relay and the log server run in: it says that it listens, and ends in order.

Source: uvicorn 0.4x, ``Server.capture_signals``.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from pipeline.domain.errors import ConfigurationError


class HttpServer(uvicorn.Server):
    """Ends in order on a signal, and leaves it at that: uvicorn's own sends the signal on afterwards,
    which would end the process before what it uses is closed, and with the signal's status.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        settings: str,
        on_started: Callable[[], None],
        connections_max: int,
        keep_alive_s: int,
        drain_s: int,
    ) -> None:
        """``settings``: the variables that say where it listens; ``on_started``: called once it does."""
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http="h11",
                ws="none",
                lifespan="off",
                proxy_headers=False,  # whoever trusts a proxy reads them in the application
                server_header=False,
                access_log=False,
                log_config=None,
                limit_concurrency=connections_max,
                timeout_keep_alive=keep_alive_s,
                timeout_graceful_shutdown=drain_s,
            )
        )
        self._settings = settings
        self._on_started = on_started

    def serve_until_told(self) -> None:
        """Serve until SIGTERM or Ctrl-C, and after it the requests that are open.

        Raises:
            ConfigurationError: The port is taken, or not ours to take.
        """
        try:
            self.run()
        except SystemExit:  # uvicorn has said why, in prose
            raise ConfigurationError(
                f"cannot listen on {self.config.host}:{self.config.port}: set {self._settings}"
            ) from None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so: uvicorn's own words are prose."""
        await super().startup(sockets)
        if self.started:
            self._on_started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ours while it serves; what was set before is set again."""
        signals = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
