"""Publishers of a test, and the broker and registry that they share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audit_sdk.contract import contract
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

    def make_producer(self, on_error: Any) -> FakeProducer:
        self.producers += 1
        self.say = on_error  # what librdkafka says of brokers
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

    def end(self) -> None:
        for publisher in self.made:
            publisher.close(0.1)

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
