"""Processes that end as the standard library ends them: nothing that was accepted is lost."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from audit_sdk import DeliveryClass
from recorded import Producer, Recorded

ACTOR = {"type": "user", "tenant": "acme", "id_type": "user_id", "id": "u-1"}


class Filed(Producer):
    """A broker that needs some time, and whose records other processes see."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def poll(self, timeout: float) -> int:
        time.sleep(0.05)
        with self._file.open("ab") as file:
            file.write(b"x" * len(self._reports))
        return super().poll(timeout)


class Clients(Recorded):
    def __init__(self, file: Path, **options: Any) -> None:
        super().__init__(**options)
        self.producer = Filed(file)


def work(file: Path, inherited: Clients | None) -> None:
    audit = inherited or Clients(file)
    for _ in range(20):
        audit.login(actor=ACTOR)


def pooled(file: str) -> None:
    global _kept  # noqa: PLW0603 - as an application has it
    _kept = Clients(Path(file))
    for _ in range(20):
        _kept.login(actor=ACTOR)


_kept: Clients | None = None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_loses_nothing(tmp_path: Path, method: str) -> None:
    file = tmp_path / "records"
    child = multiprocessing.get_context(method).Process(target=work, args=(file, None))
    child.start()
    child.join(30.0)

    assert child.exitcode == 0
    assert file.stat().st_size == 20


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_with_its_parents_client_loses_nothing_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "records"
    with Clients(file) as audit:
        assert audit._classes["authentication"] is DeliveryClass.BEST_EFFORT
        audit.login(actor=ACTOR)
        assert audit.flush(5.0) == 0
        child = multiprocessing.get_context("fork").Process(target=work, args=(file, audit))
        child.start()
        child.join(30.0)

    assert child.exitcode == 0
    assert file.stat().st_size == 21


def test_a_pool_of_processes_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "records"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(pooled, str(file)).result(30.0)

    assert file.stat().st_size == 20
