"""What a call costs on the caller's thread, and how many events a process hands to the producer.

    python sdk/python/bench/bench.py [--events N] [--rate PER_S] [--json FILE]

Needs the broker and registry that AUDIT_KAFKA_BOOTSTRAP and AUDIT_REGISTRY_URL name, and a tenant. Prints a
table. Calls are timed in two kinds of service: a busy one, whose thread works on 4 MiB of its own between
two calls, and an idle one, which sleeps. The yardstick is SHA-256 of 1 KiB, so that figures of two machines
compare: as fast as it goes, and in the pauses of the timed calls, each after one of them. What its p99
has more there is the machine's doing (sleeping processors, other processes), in calls as well.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from statistics import quantiles
from typing import Any

from audit_sdk import Audit, AuditSettings, DeliveryClass

ACTOR = {"type": "user", "tenant": "acme", "id_type": "user_id", "name": "Ada Moreau"}
WORK = memoryview(bytearray(4 * 1024 * 1024))  # what a busy service has in its processor's caches
PIECE = 1024
BLOCK = bytes(1024)
TIMED = 5_000
SOURCE = {"ip": "192.0.2.17", "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:143.0)"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=1_000.0, help="Of the calls that are timed.")
    parser.add_argument("--json", type=Path, help="Also write the figures there.")
    options = parser.parse_args()
    figures: dict[str, Any] = {"yardstick_us": yardstick_us()}
    for delivery in (DeliveryClass.BEST_EFFORT, DeliveryClass.SPOOL):
        with tempfile.TemporaryDirectory() as folder:
            settings = AuditSettings.from_environment(
                service="bench",
                tenant="acme",
                spool_dir=Path(folder),
                delivery={"data-access": delivery},
                buffer_bytes=256 * 1024 * 1024,
                spool_max_bytes=1024 * 1024 * 1024,
            )
            with Audit(settings=settings) as audit:
                call(audit, 0)
                audit.flush(30.0)
                figures[delivery.value] = {
                    "busy": timed(audit, options.rate, be_busy),
                    "idle": timed(audit, options.rate, be_idle),
                    **handed_over(audit, options.events),
                }
    for delivery, found in figures.items():
        print(f"{delivery:12}", json.dumps(found))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def call(audit: Audit, number: int) -> None:
    audit.data_access(
        "record.read",
        "read",
        actor={**ACTOR, "id": f"u-{number % 5_000:06}"},
        source=SOURCE,
        resources=[{"tenant": "acme", "type": "record", "id": f"r-{number}"}],
    )


def timed(audit: Audit, rate: float, wait: Callable[[float], None]) -> dict[str, float]:
    """Single calls at a rate that leaves the machine room; microseconds."""
    took: list[float] = []
    yardsticks: list[float] = []
    due = time.perf_counter()
    for number in range(TIMED):
        due += 0.5 / rate
        wait(due)
        began = time.perf_counter_ns()
        call(audit, number)
        took.append((time.perf_counter_ns() - began) / 1_000)
        due += 0.5 / rate
        wait(due)
        began = time.perf_counter_ns()
        sha256(BLOCK).digest()
        yardsticks.append((time.perf_counter_ns() - began) / 1_000)
    cuts, yards = quantiles(took, n=100), quantiles(yardsticks, n=100)
    return {
        "call_p50_us": round(cuts[49], 1),
        "call_p99_us": round(cuts[98], 1),
        "yardstick_p50_us": round(yards[49], 1),
        "yardstick_p99_us": round(yards[98], 1),
    }


def be_idle(due: float) -> None:
    time.sleep(max(due - time.perf_counter(), 0))


def be_busy(due: float) -> None:
    at = 0
    while time.perf_counter() < due:
        sha256(WORK[at : at + PIECE]).digest()
        at = (at + 61 * PIECE) % len(WORK)


def handed_over(audit: Audit, count: int) -> dict[str, float]:
    """As fast as it goes: accepted, then on the broker; events a second."""
    began = time.perf_counter()
    for number in range(count):
        call(audit, number)
    accepted_s = time.perf_counter() - began
    left = audit.flush(120.0)
    delivered_s = time.perf_counter() - began
    return {
        "accepted_per_s": round(count / accepted_s),
        "delivered_per_s": round((count - left) / delivered_s),
    }


def yardstick_us() -> float:
    began = time.perf_counter()
    for _ in range(50_000):
        sha256(BLOCK).digest()
    return round((time.perf_counter() - began) * 20, 2)


if __name__ == "__main__":
    main()
