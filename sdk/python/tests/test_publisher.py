"""Accepting and sending against a fake broker: room, order, outages, sequences, the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_sdk.errors import NotAccepted, NotDelivered
from audit_sdk.items import DeliveryClass
from audit_sdk.sender import ENDING_S
from confluent_kafka import KafkaError
from fake_broker import BEST, CLOSED, FAMILY, SPOOL, World, bodies, send, until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "spool")
    yield made
    made.end()


@pytest.mark.parametrize("delivery", [BEST, SPOOL])
def test_events_arrive_in_order_with_sequences_without_holes(
    world: World, delivery: DeliveryClass
) -> None:
    publisher = world.publisher()

    assert send(publisher, delivery, 500) == list(range(500))
    assert publisher.flush(5.0) == 0
    assert world.broker.bodies == bodies(0, 500)
    assert world.metrics.seen == {"accepted": 500, "delivered": 500}


def test_a_full_buffer_drops_the_newest_and_counts_them(world: World) -> None:
    world.broker.up = False
    publisher = world.publisher(buffer_bytes=2_000)

    got = send(publisher, BEST, 50)
    world.broker.up = True
    until(lambda: publisher.pending() == 0)

    assert got == list(range(len(got)))
    assert 5 <= len(got) < 50
    assert world.broker.bodies == bodies(0, len(got))
    (dropped,) = publisher.progress.dropped.values()
    assert (dropped.ranges, dropped.refused) == ([], 50 - len(got))
    assert send(publisher, BEST, 1, 99) == [len(got)]


def test_a_spool_takes_more_than_memory_and_keeps_the_order(world: World) -> None:
    world.broker.up = False
    publisher = world.publisher(buffer_bytes=2_000)

    send(publisher, SPOOL, 300)
    world.broker.up = True
    send(publisher, SPOOL, 300, 300)

    assert publisher.flush(10.0) == 0
    assert world.broker.bodies == bodies(0, 600)
    assert publisher.progress.dropped == {}


def test_a_spool_that_is_full_says_so_and_uses_no_sequence_up(world: World) -> None:
    world.broker.up = False
    publisher = world.publisher(spool_bytes=1_000)
    taken = 0
    try:
        for taken in range(1_000):
            send(publisher, SPOOL, 1, taken)
    except NotAccepted as full:
        assert "spool_max_bytes" in str(full)
    world.broker.up = True
    until(lambda: publisher.pending() == 0)

    assert send(publisher, SPOOL, 1, taken) == [taken]


def test_what_a_process_leaves_the_next_one_sends_first(world: World) -> None:
    world.broker.up = False
    first = world.publisher()
    send(first, SPOOL, 100)
    assert first.close(0.05) > 0

    world.broker.up = True
    second = world.publisher()
    send(second, SPOOL, 50, 100)

    assert second.flush(10.0) == 0
    assert world.broker.bodies == bodies(0, 150)
    assert world.metrics.seen["resent"] == 100
    second.close(1.0)
    assert list(world.folder.iterdir()) == []


def test_closing_at_once_waits_for_an_event_whose_schema_is_being_asked_for(world: World) -> None:
    world.broker.asking_s = 0.3
    publisher = world.publisher()
    send(publisher, BEST, 1)
    time.sleep(0.1)  # it is out of the queue, and not with the client library yet

    assert publisher.close(5.0) == 0
    assert world.broker.bodies == bodies(0, 1)
    assert publisher.progress.dropped == {}


def test_a_registry_that_is_away_is_waited_for(world: World) -> None:
    world.broker.registry_up = False
    publisher = world.publisher()

    send(publisher, BEST, 10)
    time.sleep(0.05)
    assert world.broker.bodies == []
    world.broker.registry_up = True

    assert publisher.flush(5.0) == 0
    assert world.broker.bodies == bodies(0, 10)


def test_a_full_queue_of_the_client_library_is_waited_for(world: World) -> None:
    world.broker.room = 3
    publisher = world.publisher()

    send(publisher, BEST, 50)

    assert publisher.flush(5.0) == 0
    assert world.broker.bodies == bodies(0, 50)


def test_a_producer_that_failed_for_good_is_replaced_and_nothing_is_lost(world: World) -> None:
    world.broker.up = False
    publisher = world.publisher()
    send(publisher, BEST, 20)
    until(lambda: world.broker.handed_over == 20)  # so that the one that fails is not the first
    world.broker.fails_for_good = 1
    send(publisher, BEST, 20, 20)
    until(lambda: world.broker.producers == 2, 10.0)
    world.broker.up = True

    assert publisher.flush(10.0) == 0
    assert world.broker.bodies == bodies(0, 40)


def test_a_refusal_is_a_dropped_range_or_an_error_or_tried_again(world: World) -> None:
    world.broker.refuses = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    publisher = world.publisher()

    send(publisher, BEST, 3)
    until(lambda: publisher.pending() == 0)
    (dropped,) = publisher.progress.dropped.values()
    assert dropped.ranges == [[0, 2]]

    item = publisher.accept(FAMILY, lambda _: (b"k", b"x"), CLOSED)
    assert item is not None
    with pytest.raises(NotDelivered, match="id-1"):
        publisher.wait(item, "id-1", 5.0)

    send(publisher, SPOOL, 2, 7)
    time.sleep(0.05)
    world.broker.refuses = None
    assert publisher.flush(5.0) == 0
    assert world.broker.bodies == bodies(7, 2)


def test_fail_closed_returns_when_the_broker_has_it_and_raises_when_not(world: World) -> None:
    publisher = world.publisher()
    item = publisher.accept(FAMILY, lambda _: (b"k", b"1"), CLOSED)
    assert item is not None
    publisher.wait(item, "id", 5.0)
    assert world.broker.bodies == [b"1"]

    world.broker.up = False
    late = publisher.accept(FAMILY, lambda _: (b"k", b"2"), CLOSED)
    assert late is not None
    began = time.monotonic()
    with pytest.raises(NotDelivered, match=r"0\.1 s"):
        publisher.wait(late, "id", 0.1)
    assert time.monotonic() - began < 1.0


def test_an_invalid_event_uses_no_sequence_up(world: World) -> None:
    publisher = world.publisher()

    def invalid(_sequence: int) -> tuple[bytes, bytes]:
        raise ValueError("invalid")

    send(publisher, BEST, 1)
    with pytest.raises(ValueError, match="invalid"):
        publisher.accept(FAMILY, invalid, BEST)

    assert send(publisher, BEST, 1, 1) == [1]


def test_threads_share_one_sequence_without_holes(world: World) -> None:
    publisher = world.publisher()
    got: list[int] = []

    def work() -> None:
        got.extend(send(publisher, SPOOL, 200))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(got) == list(range(1_600))
    assert publisher.flush(10.0) == 0
    assert len(world.broker.bodies) == 1_600


def test_closing_counts_what_is_lost_and_nothing_is_taken_after(world: World) -> None:
    world.broker.up = False
    publisher = world.publisher()
    send(publisher, BEST, 5)

    assert publisher.close(0.05) == 5
    (dropped,) = publisher.progress.dropped.values()
    assert dropped.ranges == [[0, 4]]
    with pytest.raises(NotAccepted, match="closed"):
        send(publisher, BEST, 1)


@pytest.mark.parametrize("delivery", [BEST, CLOSED])
def test_an_invalid_event_is_an_error_though_there_is_no_room(
    world: World, delivery: DeliveryClass
) -> None:
    world.broker.up = False
    publisher = world.publisher(buffer_bytes=2_000)
    send(publisher, BEST, 50)

    def invalid(_sequence: int) -> tuple[bytes, bytes]:
        raise ValueError("invalid")

    with pytest.raises(ValueError, match="invalid"):
        publisher.accept(FAMILY, invalid, delivery)


def test_closing_keeps_its_time_though_the_registry_does_not_answer(world: World) -> None:
    world.broker.asking_s = 4.0
    publisher = world.publisher()
    item = publisher.accept(FAMILY, lambda _: (b"k", b"x"), CLOSED)
    assert item is not None
    time.sleep(0.1)
    began = time.monotonic()

    assert publisher.close(1.5) == 1
    assert time.monotonic() - began < 1.5 + ENDING_S + 0.3
    with pytest.raises(NotDelivered, match="closed"):
        publisher.wait(item, "id", 0.0)
    time.sleep(2.0)  # the answer comes
    assert world.broker.bodies == []
    (dropped,) = publisher.progress.dropped.values()
    assert dropped.ranges == [[0, 0]]


def test_closing_with_nothing_left_takes_no_time(world: World) -> None:
    publisher = world.publisher()
    send(publisher, BEST, 1)
    assert publisher.flush(5.0) == 0
    began = time.monotonic()

    publisher.close(5.0)
    assert time.monotonic() - began < 0.5


def test_a_hook_that_raises_stops_no_event(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_facts: object) -> None:
        raise RuntimeError("hook")

    for hook in ("accepted", "delivered"):
        monkeypatch.setattr(world.metrics, hook, broken)
    publisher = world.publisher()

    send(publisher, BEST, 5)

    assert publisher.flush(5.0) == 0
    assert world.broker.bodies == bodies(0, 5)
