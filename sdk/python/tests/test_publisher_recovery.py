"""What processes that are gone have left: found beside the callers, sent first, told when delivered."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_sdk.segments import Segment
from audit_sdk.spool import Spool
from fake_broker import BEST, SPOOL, World, bodies, send, until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "spool")
    yield made
    made.end()


def left_behind(world: World, count: int) -> None:
    world.broker.up = False
    first = world.publisher()
    send(first, SPOOL, count)
    first.close(0.05)


def slowly(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Recovery finds what there is, and is done when the event is set."""
    go_on, really = threading.Event(), Spool.recover

    def recover(spool: Spool) -> list[Segment]:
        found = really(spool)
        go_on.wait(10.0)
        return found

    monkeypatch.setattr(Spool, "recover", recover)
    return go_on


def test_no_call_waits_for_it_and_it_goes_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(world, 100)
    world.broker.up = True
    go_on = slowly(monkeypatch)
    second = world.publisher()

    began = time.monotonic()
    send(second, SPOOL, 50, 100)
    assert time.monotonic() - began < 2.0
    assert second.pending() > 0
    assert world.broker.bodies == []
    go_on.set()

    assert second.flush(10.0) == 0
    assert world.broker.bodies == bodies(0, 150)


def test_a_flush_waits_for_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = slowly(monkeypatch)
    publisher = world.publisher()
    send(publisher, BEST, 1)

    assert publisher.flush(0.05) > 0
    go_on.set()
    assert publisher.flush(5.0) == 0


def test_closing_in_the_middle_of_it_leaves_everything_for_the_next_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(world, 20)
    with monkeypatch.context() as patched:
        go_on = slowly(patched)
        second = world.publisher()
        send(second, SPOOL, 10, 20)
        second.close(0.05)
        go_on.set()
    world.broker.up = True
    third = world.publisher()
    send(third, SPOOL, 10, 30)

    assert third.flush(10.0) == 0
    assert world.broker.bodies == bodies(0, 40)


def test_it_is_told_as_sent_again_when_the_broker_has_it(world: World) -> None:
    left_behind(world, 100)
    second = world.publisher()
    send(second, SPOOL, 1, 100)
    until(lambda: world.broker.handed_over >= 101)
    assert "resent" not in world.metrics.seen
    world.broker.up = True

    assert second.flush(10.0) == 0
    assert world.metrics.seen["resent"] == 100


def test_a_spool_that_cannot_be_read_just_now_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(world, 10)
    world.broker.up = True
    with monkeypatch.context() as patched:
        asked = threading.Event()

        def fails(path: Path, *_mode: str) -> None:
            asked.set()
            raise OSError(24, "too many open files")

        really = Spool.recover

        def recover(spool: Spool) -> list[Segment]:
            found = really(spool)
            patched.setattr(Path, "open", fails)
            return found

        patched.setattr(Spool, "recover", recover)
        second = world.publisher()
        send(second, SPOOL, 1, 10)
        assert asked.wait(5.0)
        time.sleep(0.05)

    assert second.flush(10.0) == 0
    assert world.broker.bodies == bodies(0, 11)
