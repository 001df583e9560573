"""Accepting and sending against a fake broker: room, order, outages, sequences, the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_sdk.contract import contract
from audit_sdk.errors import NotAccepted, NotDelivered
from audit_sdk.items import DeliveryClass, Metrics
from audit_sdk.publisher import Publisher
from audit_sdk.registry import RegistryUnavailable
from audit_sdk.spool import Spool
from confluent_kafka import KafkaError, KafkaException

FAMILY = "data-access"
BEST, SPOOL, CLOSED = DeliveryClass.BEST_EFFORT, DeliveryClass.SPOOL, DeliveryClass.FAIL_CLOSED


class Broker:
    """What every producer of a test delivers to."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.up = True
        self.room = 1_000_000
        self.refuses: KafkaError | None = None
        self.fails_for_good = 0
        self.producers = 0
        self.handed_over = 0
        self.registry_up = True
        self.asking_s = 0.0

    def make_producer(self) -> FakeProducer:
        self.producers += 1
        return FakeProducer(self)

    # --- SchemaIds ---

    def ask(self, _family: str) -> int:
        time.sleep(self.asking_s)
        if not self.registry_up:
            raise RegistryUnavailable("registry: URLError")
        return 1


class FakeProducer:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._held: list[tuple[bytes, Any]] = []

    def produce(self, topic: str, value: bytes, key: bytes, on_delivery: Any) -> None:
        assert topic == contract().families[FAMILY].topic
        if self._broker.fails_for_good:
            self._broker.fails_for_good -= 1
            raise KafkaException(KafkaError(KafkaError._FATAL, "fenced"))
        if len(self._held) >= self._broker.room:
            raise BufferError
        self._held.append((value[5:], on_delivery))
        self._broker.handed_over += 1

    def poll(self, timeout: float) -> int:
        if not self._broker.up:
            time.sleep(min(timeout, 0.005))
            return 0
        held, self._held = self._held, []
        for body, on_delivery in held:
            if self._broker.refuses is None:
                self._broker.bodies.append(body)
            on_delivery(self._broker.refuses, None)
        return len(held)

    def purge(self, in_queue: bool = True, in_flight: bool = True) -> None:
        held, self._held = self._held, []
        for _body, on_delivery in held:
            on_delivery(KafkaError(KafkaError._PURGE_QUEUE), None)


class Counted(Metrics):
    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def accepted(self, family: str) -> None:
        self._count("accepted")

    def delivered(self, family: str, seconds: float) -> None:
        self._count("delivered")

    def dropped(self, family: str, count: int, reason: str) -> None:
        self._count(f"dropped {reason}")

    def resent(self, count: int) -> None:
        self.seen["resent"] = count

    def _count(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1


class World:
    def __init__(self, folder: Path) -> None:
        self.broker = Broker()
        self.folder = folder
        self.metrics = Counted()
        self.made: list[Publisher] = []

    def publisher(self, *, buffer_bytes: int = 1 << 20, spool_bytes: int = 1 << 20) -> Publisher:
        name = f"{len(self.made)}"

        def make_spool() -> Spool:
            return Spool(self.folder, name, max_bytes=spool_bytes)

        made = Publisher(
            self.broker.make_producer,
            self.broker,  # type: ignore[arg-type]
            make_spool,
            self.metrics,
            buffer_bytes=buffer_bytes,
        )
        self.made.append(made)
        return made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "spool")
    yield made
    for publisher in made.made:
        publisher.close(0.1)


def send(publisher: Publisher, delivery: DeliveryClass, count: int, first: int = 0) -> list[int]:
    """Events whose bodies are their numbers; the sequences that they got."""
    got = []
    for number in range(first, first + count):
        body = f"{number}".encode()
        item = publisher.accept(FAMILY, lambda _sequence, body=body: (b"k", body), delivery)
        if item is not None and item.sequence is not None:
            got.append(item.sequence)
    return got


def bodies(first: int, count: int) -> list[bytes]:
    return [f"{number}".encode() for number in range(first, first + count)]


def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


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


def test_a_hook_that_raises_stops_no_event(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_facts: object) -> None:
        raise RuntimeError("hook")

    for hook in ("accepted", "delivered"):
        monkeypatch.setattr(world.metrics, hook, broken)
    publisher = world.publisher()

    send(publisher, BEST, 5)

    assert publisher.flush(5.0) == 0
    assert world.broker.bodies == bodies(0, 5)
