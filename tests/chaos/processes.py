"""The processes of a fault test: the stack's servers, the command line, workers that are restarted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psutil
import psycopg

from tests.chaos.form import BUILD, ROOT, SESSION_S

Answer = TypeVar("Answer")

STACK = [sys.executable, str(ROOT / "infra" / "local" / "stack.py")]
_RSS_EACH_S = 10
AUDIT_TRAIL = [sys.executable, "-m", "pipeline.entrypoints.cli"]


def stack(*words: str) -> None:
    """One command of the local stack, such as ``kill postgres``."""
    subprocess.run([*STACK, *words], check=True, capture_output=True, timeout=180)


def cli(*words: str, **env: str) -> str:
    """One command of the application, and what it wrote to stdout."""
    done = subprocess.run(
        [*AUDIT_TRAIL, *words],
        capture_output=True,
        check=False,
        env={**os.environ, **env},
        cwd=ROOT,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def wait_until(
    holds: Callable[[], Answer], timeout_s: float, what: str | Callable[[], str]
) -> Answer:
    """The first answer that is true; a database that is away answers nothing."""
    deadline = time.monotonic() + timeout_s
    while True:
        with suppress(psycopg.Error):
            answer = holds()
            if answer:
                return answer
        if time.monotonic() > deadline:
            raise AssertionError(
                f"not within {timeout_s:.0f} s: {what if isinstance(what, str) else what()}"
            )
        time.sleep(0.2)


class Worker:
    """One worker, started again whenever it ends, as its supervisor does; until ``stop``."""

    _made = 0

    def __init__(self, **env: str) -> None:
        BUILD.mkdir(exist_ok=True)
        Worker._made += 1
        self.log_file = BUILD / f"worker-{os.getpid()}-{Worker._made}.log"
        self.port = free_port()
        self._env = {
            **os.environ,
            "AUDIT_HTTP_PORT": str(self.port),
            "AUDIT_SESSION_TIMEOUT_S": str(SESSION_S),
            "AUDIT_ARCHIVE_MAX_AGE_S": "2",
            **env,
        }
        self.starts = 0
        self._began = time.monotonic()
        self.rss_mb: list[int] = []  # the peak of each ten seconds
        self._wanted = True
        self._lock = threading.Lock()
        self._log = self.log_file.open("wb")
        self._start()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [*AUDIT_TRAIL, "worker"], env=self._env, stderr=self._log, cwd=ROOT
        )
        self.starts += 1

    def _supervise(self) -> None:
        while self._wanted:
            with suppress(psutil.Error):
                rss = psutil.Process(self._process.pid).memory_info().rss // 1_000_000
                self._saw(rss)
            with self._lock:
                if self._wanted and self._process.poll() is not None:
                    self._start()
            time.sleep(0.05)

    def _saw(self, rss: int) -> None:
        """Remember when the worker was how large, so that a bound that breaks says when."""
        at = int((time.monotonic() - self._began) / _RSS_EACH_S)
        self.rss_mb += [0] * (at + 1 - len(self.rss_mb))
        self.rss_mb[at] = max(self.rss_mb[at], rss)

    @property
    def peak_rss_mb(self) -> int:
        """The most that any of its starts had."""
        return max(self.rss_mb, default=0)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def state(self) -> dict[str, Any]:
        """``/readyz``; empty while nobody answers."""
        found = self._page("readyz")
        return json.loads(found) if found else {}

    def metrics(self) -> list[str]:
        """The lines of ``/metrics``."""
        return self._page("metrics").decode().splitlines()

    def _page(self, name: str) -> bytes:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{name}", timeout=5) as page:
                return bytes(page.read())
        except urllib.error.HTTPError as error:
            return bytes(error.read())
        except OSError:
            return b""

    def partitions(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The partitions that it holds, as ``/readyz`` shows them."""
        return {
            (found["topic"], found["partition"]): found
            for found in self.state().get("partitions", [])
        }

    def wait_ready(self, partitions: int = 1, timeout_s: float = 60.0) -> None:
        """Until it holds so many partitions at least, each at its position."""

        def ready() -> bool:
            state = self.state()
            return bool(state.get("ready")) and len(state["partitions"]) >= partitions

        wait_until(ready, timeout_s, lambda: f"a ready worker; {self.state()}")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log with this event, over all its starts."""
        found = []
        for line in self.log_file.read_bytes().splitlines():
            with suppress(ValueError):  # a kill cuts a line
                entry = json.loads(line)
                if entry.get("event") == event:
                    found.append(entry)
        return found

    def kill(self) -> None:
        """As a crash, and nobody starts it again."""
        with self._lock:
            self._wanted = False
        self.signal(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order, or kill it if it does not end."""
        with self._lock:
            self._wanted = False
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._thread.join(10)
        self._log.close()


@contextmanager
def worker(**env: str) -> Iterator[Worker]:
    """A worker for as long as the block lasts."""
    made = Worker(**env)
    try:
        yield made
    finally:
        made.stop()


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
