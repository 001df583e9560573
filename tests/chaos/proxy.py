"""A TCP proxy that fails on purpose, in a thread of its own: one listener in front of one server."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from enum import StrEnum

_CHUNK = 65_536


class Fault(StrEnum):
    NONE = "none"
    DOWN = "down"  # connections are refused at once
    BLACKHOLE = "blackhole"  # accepted, and nothing comes back
    SLOW = "slow"  # every piece takes 50 ms
    CUT = "cut"  # each answer ends in its middle
    RESET = "reset"  # connections are reset while they are used


class FaultProxy:
    """Forwards to ``host:port`` from ``self.port``; ``fault`` may change at any time."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self.fault = Fault.NONE
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait(10)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)

        async def serve() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port: int = server.sockets[0].getsockname()[1]
            started.set()

        self._loop.run_until_complete(serve())
        self._loop.run_forever()

    def set(self, fault: Fault) -> None:
        """Change the fault; what is open is reset, unless it only becomes slow."""
        self.fault = fault
        if fault is not Fault.SLOW:
            self._loop.call_soon_threadsafe(self._reset_all)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault is Fault.DOWN:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(
                self._pump(reader, far_writer, answers=False),
                self._pump(far_reader, writer, answers=True),
            )
        finally:
            for each in (writer, far_writer):
                self._writers.discard(each)
                with suppress(Exception):
                    each.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                while self.fault is Fault.BLACKHOLE:
                    await asyncio.sleep(0.05)
                if self.fault is Fault.SLOW:
                    await asyncio.sleep(0.05)
                if self.fault is Fault.RESET or (answers and self.fault is Fault.CUT):
                    if self.fault is Fault.CUT:
                        writer.write(data[: len(data) // 2])
                        await writer.drain()
                    _reset(writer)
                    return
                writer.write(data)
                await writer.drain()
            with suppress(Exception):
                writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(Exception):
        writer.transport.abort()
