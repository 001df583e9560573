"""Who produces, and what each event gets: ids, times, an epoch that grows at each start."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import Any


def now_us() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000


def uuid7(at_us: int) -> str:
    """A version 7 UUID of a time in microseconds. Source: RFC 9562 §5.7."""
    random = int.from_bytes(os.urandom(10), "big")
    number = (
        (at_us // 1_000) << 80
        | 0x7 << 76
        | (random >> 68) << 64
        | 0b10 << 62
        | random & 0x3FFF_FFFF_FFFF_FFFF
    )
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@dataclass(frozen=True, slots=True)
class Identity:
    """One producing process, from its start or its fork on."""

    service: str
    version: str | None
    environment: str | None
    instance: str
    epoch: int

    @classmethod
    def here(
        cls, service: str, version: str | None, environment: str | None, instance: str | None
    ) -> Identity:
        """Of this process; without a name of its own it is host and process id."""
        named = instance or f"{socket.gethostname()}-{os.getpid()}"
        return cls(service, version, environment, named, now_us())

    def producer(self, sequence: int) -> dict[str, Any]:
        """The record ``producer`` of an event."""
        return {
            "service": self.service,
            "version": self.version,
            "instance": self.instance,
            "environment": self.environment,
            "epoch": self.epoch,
            "sequence": sequence,
        }
