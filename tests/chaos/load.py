"""Events being published, and how many of them have reached each store."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg

from pipeline.entrypoints.cli.compare import SELECT_LEAVES, ledger_ids
from pipeline.settings import Settings
from tests.chaos.form import RATE, ROOT
from tests.chaos.processes import AUDIT_TRAIL, Worker, wait_until

STORES = ("ledger", "index", "archive")
PUBLISHED = "published"
_LOOK_S = 0.25
_ABREAST_S = 3.0
_seeds = iter(range(int(time.time()), 2**31))  # other events in each load


@dataclass
class Load:
    """Events being published; ``ids_file`` gets the id and the position of each.

    ``before``: what the ledger held already.
    """

    process: subprocess.Popen[bytes]
    ids_file: Path
    before: frozenset[bytes]

    def wait(self, timeout_s: float = 900.0) -> None:
        """Until every event is acknowledged by the broker."""
        _out, errors = self.process.communicate(timeout=timeout_s)
        assert self.process.returncode == 0, errors.decode()[-2000:]

    @property
    def flows(self) -> bool:
        """Not all of it is published yet."""
        return self.process.poll() is None

    @property
    def published(self) -> int:
        with self.ids_file.open("rb") as lines:
            return sum(1 for _line in lines)


def publish(
    settings: Settings,
    ids_file: Path,
    count: int,
    *,
    rate: int = RATE,
    tenants: int = 3,
    family: str = "",
) -> Load:
    """Start publishing events of so many tenants, of one family or all; nothing is waited for."""
    before = ledger_ids(settings, "leaves", SELECT_LEAVES).ids
    ids_file.touch()
    process = subprocess.Popen(
        [*AUDIT_TRAIL, "generate", "--count", str(count), "--rate", str(rate),
         "--seed", str(next(_seeds)), "--tenants", str(tenants), "--create-tenants",
         "--ids-file", str(ids_file), *(["--family", family] if family else [])],
        env=os.environ,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    return Load(process, ids_file, before)


def connect(settings: Settings) -> psycopg.Connection[Any]:
    """To the ledger as the writer, past any proxy."""
    return psycopg.connect(
        settings.database_url.get_secret_value(), autocommit=True, connect_timeout=3
    )


def stored(settings: Settings) -> dict[str, int]:
    """Leaves in the ledger, and how many of them each follower has."""
    with connect(settings) as connection:
        row = connection.execute(
            "SELECT (SELECT coalesce(sum(size), 0)::bigint FROM log_heads),"
            " (SELECT coalesce(sum(next_leaf), 0)::bigint FROM follower_position"
            "  WHERE follower = 'index'),"
            " (SELECT coalesce(sum(next_leaf), 0)::bigint FROM follower_position"
            "  WHERE follower = 'archive')"
        ).fetchone()
    return dict(zip(STORES, row or (0, 0, 0), strict=True))


def wait_drained(settings: Settings, load: Load, timeout_s: float = 300.0) -> None:
    """Until every published event is a leaf, and every follower has every leaf."""
    expected = len(load.before) + load.published

    def drained() -> bool:
        now = stored(settings)
        return now["ledger"] >= expected and len(set(now.values())) == 1

    wait_until(drained, timeout_s, lambda: f"{expected} everywhere; {stored(settings)}")


def wait_for_flow(settings: Settings, one: Worker) -> None:
    """Until this worker brings what comes to every store."""
    one.wait_ready()
    before = stored(settings)
    wait_until(
        lambda: all(count > before[store] for store, count in stored(settings).items()),
        60,
        "the first events in every store",
    )


def wait_abreast(settings: Settings, load: Load, rate: int) -> None:
    """Until every store is at most some seconds behind what is published."""

    def abreast() -> bool:
        due = len(load.before) + load.published - _ABREAST_S * rate
        return all(count >= due for count in stored(settings).values())

    wait_until(abreast, 120, lambda: f"stores that keep up; {stored(settings)}")


@dataclass
class Rates:
    """What is published and in each store over time, looked at by a thread while the block lasts.

    Nothing is noted while the database is away.
    """

    settings: Settings
    load: Load
    _counts: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_S):
            with suppress(psycopg.Error):
                counts = stored(self.settings) | {PUBLISHED: self.load.published}
                self._counts.append((time.monotonic(), counts))

    def between(self, start: float, end: float) -> dict[str, float]:
        """Events a second that were published, and that reached each store, between two times."""
        seen = [(at, counts) for at, counts in self._counts if start <= at <= end]
        assert len(seen) > 1, "the database was away all the time"
        (first_at, first), (last_at, last) = seen[0], seen[-1]
        return {name: round((last[name] - first[name]) / (last_at - first_at), 1) for name in last}
