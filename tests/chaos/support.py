"""Workers that are killed and started again, load, and the proof that nothing was lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import psycopg

from pipeline.domain.merkle import merkle_root
from pipeline.entrypoints.cli.compare import SELECT_LEAVES, compare_stores, ledger_ids
from pipeline.entrypoints.cli.dead_letters import read_letters
from pipeline.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
STACK = [sys.executable, str(ROOT / "infra" / "local" / "stack.py")]
FULL = os.environ.get("AUDIT_CHAOS") == "full"
EVENTS = 200_000 if FULL else 20_000
KILLS = 10 if FULL else 3
BURST = 30 if FULL else 4  # kills 0.1 to 1 s apart, after the others
OUTAGE_S = 60.0 if FULL else 10.0
RATE = 2_000
SESSION_S = 6.0
RSS_MAX_MB = 400

FIGURES: list[dict[str, Any]] = []


def report(test: str, **figures: Any) -> None:
    """Figures for the table at the end and for build/chaos.json."""
    FIGURES.append({"test": test, **figures})
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    (build / "chaos.json").write_text(json.dumps(FIGURES, indent=2), encoding="utf-8")
    print(test, figures, flush=True)


def stack(*words: str) -> None:
    """One command of the local stack."""
    subprocess.run([*STACK, *words], check=True, capture_output=True, timeout=180)


def cli(*words: str, **env: str) -> str:
    """One command of the application; its data."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", *words],
        capture_output=True,
        check=False,
        env={**os.environ, **env},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def wait_until(holds: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        with suppress(psycopg.Error):
            answer = holds()
            if answer:
                return answer
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.2)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Worker:
    """One worker process that a supervisor starts again whenever it ends."""

    def __init__(self, number: int = 0, **env: str) -> None:
        self.port = free_port()
        self._env = {
            **os.environ,
            "AUDIT_HTTP_PORT": str(self.port),
            "AUDIT_SESSION_TIMEOUT_S": str(SESSION_S),
            "AUDIT_ARCHIVE_MAX_AGE_S": "2",
            **env,
        }
        self.starts = 0
        self.peak_rss_mb = 0.0
        self._wanted = True
        self._lock = threading.Lock()
        log_file = ROOT / "build" / f"chaos-worker-{number}.log"
        self._log = log_file.open("ab")
        self._start()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.entrypoints.cli", "worker"],
            env=self._env,
            stderr=self._log,
            cwd=ROOT,
        )
        self.starts += 1

    def _supervise(self) -> None:
        while self._wanted:
            with suppress(psutil.Error):
                rss = psutil.Process(self.pid).memory_info().rss / 1e6
                self.peak_rss_mb = max(self.peak_rss_mb, rss)
            with self._lock:
                if self._wanted and self._process.poll() is not None:
                    self._start()
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def state(self) -> dict[str, Any]:
        """``/readyz``; empty while nobody answers."""
        import urllib.error
        import urllib.request

        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as page:
                return json.load(page)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            return json.load(error)  # type: ignore[no-any-return]
        except OSError:
            return {}

    def stop(self) -> None:
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
def worker(number: int = 0, **env: str) -> Iterator[Worker]:
    made = Worker(number, **env)
    try:
        yield made
    finally:
        made.stop()


@dataclass
class Load:
    """Events being published; ``ids_file`` has the id and the position of each."""

    process: subprocess.Popen[bytes]
    ids_file: Path
    before: frozenset[bytes]
    letters_before: int
    counts: list[int] = field(default_factory=list)

    def wait(self, timeout_s: float = 900.0) -> None:
        _out, errors = self.process.communicate(timeout=timeout_s)
        assert self.process.returncode == 0, errors.decode()[-2000:]

    @property
    def published(self) -> int:
        return sum(1 for _line in self.ids_file.open(encoding="utf-8"))


_seeds = iter(range(int(time.time()), 2**31))


def publish(
    settings: Settings, ids_file: Path, count: int, *, rate: int = RATE, **env: str
) -> Load:
    """Start publishing; nothing is waited for."""
    before = ledger_ids(settings, "leaves", SELECT_LEAVES).ids
    letters = sum(1 for _ in read_letters(settings))
    ids_file.touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.entrypoints.cli", "generate", "--count", str(count),
         "--rate", str(rate), "--seed", str(next(_seeds)), "--create-tenants",
         "--ids-file", str(ids_file)],
        env={**os.environ, **env},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    return Load(process, ids_file, before, letters)


def connect(settings: Settings, *, admin: bool = False) -> psycopg.Connection[Any]:
    url = settings.database_admin_url if admin else settings.database_url
    return psycopg.connect(url.get_secret_value(), autocommit=True, connect_timeout=3)


def stored(settings: Settings) -> dict[str, int]:
    """Leaves in the ledger, and how many of them each follower has."""
    with connect(settings) as connection:
        (leaves,) = connection.execute(
            "SELECT coalesce(sum(size), 0)::bigint FROM log_heads"
        ).fetchone() or (0,)
        counts = {"ledger": int(leaves)}
        for follower in ("index", "archive"):
            (count,) = connection.execute(
                "SELECT coalesce(sum(next_leaf), 0)::bigint FROM follower_position"
                " WHERE follower = %s",
                [follower],
            ).fetchone() or (0,)
            counts[follower] = int(count)
        return counts


def wait_drained(settings: Settings, load: Load, timeout_s: float = 300.0) -> None:
    """Until every published event is a leaf, and every follower has every leaf."""
    expected = len(load.before) + load.published

    def drained() -> bool:
        now = stored(settings)
        return now["ledger"] >= expected and len(set(now.values())) == 1

    wait_until(drained, timeout_s, f"{expected} events in every store; {stored(settings)}")


def prove(settings: Settings, load: Load, *, dead: int = 0) -> None:
    """All of issue 3's invariants: sets equal, nothing twice, order kept, roots and intake right."""
    comparison = compare_stores(settings, load.ids_file, before=load.before)
    assert comparison.equal, comparison.as_dict()
    assert sum(comparison.reasons.values()) == dead, comparison.reasons
    with connect(settings) as connection:
        heads = connection.execute(
            "SELECT log_id, name, size, next_offset, root FROM log_heads"
        ).fetchall()
        for log_id, name, size, next_offset, root in heads:
            leaves = connection.execute(
                "SELECT l.leaf_index, l.leaf_hash, a.source_offset FROM leaves l"
                " JOIN audit_logs a USING (log_id, leaf_index, occurred_at)"
                " WHERE log_id = %s ORDER BY leaf_index",
                [log_id],
            ).fetchall()
            assert [leaf[0] for leaf in leaves] == list(range(size)), name
            offsets = [leaf[2] for leaf in leaves]
            assert offsets == sorted(set(offsets)), f"{name}: order or an offset twice"
            assert merkle_root([bytes(leaf[1]) for leaf in leaves]) == bytes(root), name
            intake = connection.execute(
                "SELECT first_offset, next_offset, accepted FROM intake WHERE log_id = %s"
                " ORDER BY first_offset",
                [log_id],
            ).fetchall()
            for one, two in pairwise(intake):
                assert one[1] == two[0], f"{name}: intake ranges do not abut"
            assert sum(row[2] for row in intake) == size, name
            assert not intake or intake[-1][1] == next_offset, name


def leaf_hashes(settings: Settings) -> dict[tuple[str, int], bytes]:
    """Every leaf's hash by log name and index."""
    with connect(settings) as connection:
        rows = connection.execute(
            "SELECT name, leaf_index, leaf_hash FROM leaves JOIN log_heads USING (log_id)"
        ).fetchall()
        return {(name, index): bytes(found) for name, index, found in rows}


def fresh_settings() -> Settings:
    return load_settings()
