"""Events of signal handlers and finalizers, which interrupt another call on its own thread."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from audit_sdk import InvalidEvent, NotDelivered
from audit_sdk.errors import NotAccepted
from audit_sdk.items import DeliveryClass, Item
from audit_sdk.publisher import Publisher
from fake_broker import BEST, CLOSED, FAMILY, SPOOL, World, send
from recorded import Recorded

ACTOR = {"type": "user", "tenant": "acme", "id_type": "user_id", "id": "u-1"}
DEEPEST = 4  # handlers within handlers


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "spool")
    yield made
    made.end()


def accept(publisher: Publisher, delivery: DeliveryClass, during: Any = None) -> Item | None:
    """An event whose body is its sequence; something else is done while it is encoded."""

    def make(sequence: int) -> tuple[bytes, bytes]:
        if during is not None:
            during()
        return b"k", f"{sequence}".encode()

    return publisher.accept(FAMILY, make, delivery)


@pytest.mark.parametrize("delivery", [BEST, SPOOL])
def test_an_event_within_another_gets_the_next_sequence_and_arrives(
    world: World, delivery: DeliveryClass
) -> None:
    publisher = world.publisher()
    for _ in range(50):
        accept(publisher, delivery, lambda: accept(publisher, delivery))

    assert publisher.flush(5.0) == 0
    assert world.broker.bodies == [f"{number}".encode() for number in range(100)]


def test_an_event_within_one_that_is_invalid_arrives_all_the_same(world: World) -> None:
    publisher = world.publisher()

    def during() -> None:
        accept(publisher, BEST)
        raise ValueError("invalid")

    with pytest.raises(ValueError, match="invalid"):
        accept(publisher, BEST, during)

    assert publisher.flush(5.0) == 0
    assert world.broker.bodies == [b"0"]


def test_an_event_within_any_use_of_the_lock_arrives(world: World) -> None:
    publisher = world.publisher()
    with publisher._outbox.lock:  # as a finalizer on the sending thread, which holds it often
        accept(publisher, BEST)

    assert publisher.close(5.0) == 0
    assert world.broker.bodies == [b"0"]


def test_an_event_within_another_does_not_wait_for_the_broker(world: World) -> None:
    publisher = world.publisher()
    held: list[Item] = []

    def during() -> None:
        item = accept(publisher, CLOSED)
        assert item is not None
        held.append(item)
        began = time.monotonic()
        with pytest.raises(NotDelivered, match="within another call"):
            publisher.wait(item, "id", 5.0)
        assert time.monotonic() - began < 1.0

    accept(publisher, CLOSED, during)

    publisher.wait(held[0], "id", 5.0)
    assert world.broker.bodies == [b"0", b"1"]


def test_an_event_within_another_for_which_there_is_no_room_is_counted(world: World) -> None:
    world.broker.up = False
    publisher = world.publisher(spool_bytes=100)
    accept(publisher, SPOOL)

    def during() -> None:
        accept(publisher, SPOOL)

    for _ in range(5):
        with suppress(NotAccepted):
            accept(publisher, SPOOL, during)

    (dropped,) = publisher.progress.dropped.values()
    assert dropped.refused == world.metrics.seen["dropped not_accepted"] > 0


def test_signal_handlers_record_events_while_others_are_recorded() -> None:
    told: list[str] = []
    nested = 0
    with Recorded() as audit:

        def handler(_number: int, _frame: Any) -> None:
            nonlocal nested
            nested += 1
            if nested < DEEPEST:  # else a slow machine nests without end
                signal.setitimer(signal.ITIMER_REAL, 0.001)
            told.append(audit.login(actor=ACTOR))
            with pytest.raises(InvalidEvent):
                audit.login(actor={"type": "user"})
            nested -= 1
            signal.setitimer(signal.ITIMER_REAL, 0.003)

        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.003)
        try:
            sent = [audit.login(actor=ACTOR) for _ in range(400)]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        events = audit.events()

    assert told
    assert sorted(str(event["event_id"]) for event in events) == sorted(sent + told)
    assert [event["producer"]["sequence"] for event in events] == list(range(len(events)))


def test_what_came_within_a_client_that_is_closed_is_refused(world: World) -> None:
    publisher = world.publisher()
    send(publisher, BEST, 1)
    publisher.close(1.0)

    with publisher._outbox.lock, pytest.raises(NotAccepted, match="closed"):
        accept(publisher, BEST)
