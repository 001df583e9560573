"""A TCP proxy before one server that fails on purpose, in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import threading
from collections import Counter
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_CHUNK = 65_536
_SLOW_S = 0.05
_LOOK_S = 0.02
_COMMITTED = b"COMMIT\x00"  # PostgreSQL's answer to COMMIT


class Fault(StrEnum):
    NONE = "none"
    DOWN = "down"  # every connection is reset, new ones at once
    SILENT = "silent"  # requests arrive, and no answer comes back until the fault ends
    SLOW = "slow"  # every piece takes 50 ms
    CUT = "cut"  # each answer ends in its middle
    RESET = "reset"  # connections are reset when they are used
    LOSE_COMMIT = "lose commit"  # reset in place of every second answer to a COMMIT


class FaultProxy:
    """Before the server of ``url``, reached by ``self.url``; the fault may change at any time.

    ``port``: where it listens; 0 for any. ``met``: how often each fault had something to spoil.
    ``answers_to_lose``: so many answers are replaced by a reset, whatever the fault.
    """

    def __init__(self, url: str, port: int = 0) -> None:
        parts = urlsplit(url)
        self._target = parts.hostname or "", parts.port or 0
        self._fault = Fault.NONE
        self._near_port = port
        self.met: Counter[Fault] = Counter()
        self._open: set[asyncio.StreamWriter] = set()
        self._commits = 0
        self.answers_to_lose = 0
        self.commits_lost = 0
        serving = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(serving)), name="fault proxy", daemon=True
        )
        self._thread.start()
        assert serving.wait(10), "the proxy does not start"
        credentials, at, _address = parts.netloc.rpartition("@")
        netloc = f"{credentials}{at}127.0.0.1:{self._port}"
        self.url = urlunsplit(parts._replace(netloc=netloc))
        self.address = netloc

    def set(self, fault: Fault) -> None:
        """Change the fault. DOWN resets what is open; the others meet it when it is used."""
        self._fault = fault
        if fault is Fault.DOWN:
            asyncio.run_coroutine_threadsafe(self._reset_open(), self._loop).result(10)

    def close(self) -> None:
        """Listen no more, and end what is open."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(10)

    async def _run(self, serving: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        server = await asyncio.start_server(self._join, "127.0.0.1", self._near_port)
        self._port: int = server.sockets[0].getsockname()[1]
        serving.set()
        await self._closing.wait()
        server.close()
        await self._reset_open()

    async def _reset_open(self) -> None:
        for writer in list(self._open):
            self.met[self._fault] += 1
            _reset(writer)

    async def _join(self, near: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        if self._fault is Fault.DOWN:
            self.met[Fault.DOWN] += 1
            _reset(answer)
            return
        try:
            far, request = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(answer)
            return
        ends = {answer, request}
        self._open |= ends
        pumps = [
            asyncio.ensure_future(self._pump_requests(near, request, answer)),
            asyncio.ensure_future(self._pump_answers(far, answer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._open -= ends
            for writer in ends:
                writer.close()

    async def _pump_requests(
        self,
        near: asyncio.StreamReader,
        request: asyncio.StreamWriter,
        answer: asyncio.StreamWriter,
    ) -> None:
        while piece := await near.read(_CHUNK):
            if self._fault is Fault.RESET:
                self.met[Fault.RESET] += 1
                _reset(answer)
                return
            await self._forward(piece, request)

    async def _pump_answers(self, far: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        while piece := await far.read(_CHUNK):
            if self._fault is not Fault.NONE:
                self.met[self._fault] += 1
            while self._fault is Fault.SILENT:
                await asyncio.sleep(_LOOK_S)
            if self._fault is Fault.CUT:
                await self._forward(piece[: len(piece) // 2], answer)
            if self._fault in (Fault.CUT, Fault.RESET) or self._loses(piece):
                _reset(answer)
                return
            await self._forward(piece, answer)

    async def _forward(self, piece: bytes, to: asyncio.StreamWriter) -> None:
        if self._fault is Fault.SLOW:
            await asyncio.sleep(_SLOW_S)
        to.write(piece)
        await to.drain()

    def _loses(self, answer: bytes) -> bool:
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            return True
        if self._fault is Fault.LOSE_COMMIT and _COMMITTED in answer:
            self._commits += 1
            if self._commits % 2:
                self.commits_lost += 1
                return True
        return False


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST in place of FIN: what was not read is gone."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def kafka_line() -> FaultProxy:
    """A line to the broker of the stack that the tests run on, by the listener that is made for it."""
    home = Path(os.environ.get("AUDIT_STACK_DIR") or Path(__file__).parents[1] / ".stack")
    ports: dict[str, int] = json.loads((home / "stack.json").read_bytes())["ports"]
    return FaultProxy(f"kafka://127.0.0.1:{ports['kafka_behind_proxy']}", ports["kafka_proxy"])
