"""The two events that benches use: every one of a kind has the same size, so rates compare.

``lean_events`` are sign-ins of 277 bytes of Avro, the size that the figures of other pipelines were
measured with. ``realistic_events`` are accesses to a customer's record, as a service sends them.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, Final

from pipeline.generator.identifiers import hexadecimal, uuid7

LEAN_BYTES: Final = 277
REALISTIC_BYTES: Final = 566
_STEP_US: Final = 100
_SOURCES: Final = 90
_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"
_LEAN_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64) Firefox/143.0.1"


def lean_events(
    count: int, *, seed: int, start_at_us: int, tenant: str = "acme", people: int = 10_000
) -> Iterator[tuple[str, dict[str, Any]]]:
    """``count`` sign-ins, 100 µs apart, by so many people at random; parts are shared: read only.

    The size holds for a tenant of four letters and at most a million people.
    """
    random = Random(seed)  # noqa: S311 - made load, not a secret
    actors = [_actor(tenant, number) for number in range(people)]
    sources = [_source(number, _LEAN_AGENT) for number in range(_SOURCES)]
    producer = {"service": "identity", "instance": "identity-7d9f", "environment": "production"}
    for index in range(count):
        occurred_at = start_at_us + index * _STEP_US
        number = int(random.random() * people)
        yield (
            "authentication",
            {
                "event_id": uuid7(occurred_at, random),
                "occurred_at": occurred_at,
                "tenant": tenant,
                "action": "session.start",
                "outcome": "success",
                "producer": producer,
                "actor": actors[number],
                "source": sources[number % _SOURCES],
                "session": {"id": hexadecimal(16, random), "mfa": True},
                "logon_type": "interactive",
            },
        )


def realistic_events(
    count: int, *, seed: int, start_at_us: int, tenant: str = "acme", people: int = 10_000
) -> Iterator[tuple[str, dict[str, Any]]]:
    """``count`` accesses to records of other people, as ``lean_events`` otherwise."""
    random = Random(seed)  # noqa: S311 - made load, not a secret
    actors = [{**_actor(tenant, number), "roles": ["support"]} for number in range(people)]
    sources = [
        {**_source(number, _AGENT), "device_id": f"d-{number:012x}"} for number in range(_SOURCES)
    ]
    for index in range(count):
        occurred_at = start_at_us + index * _STEP_US
        number, other = int(random.random() * people), int(random.random() * people)
        record_id = hexadecimal(12, random)
        yield (
            "data-access",
            {
                "event_id": uuid7(occurred_at, random),
                "occurred_at": occurred_at,
                "tenant": tenant,
                "action": "record.read",
                "outcome": "success",
                "producer": {
                    "service": "records",
                    "version": "4.2.0",
                    "instance": "records-7d9f",
                    "environment": "production",
                    "epoch": 1,
                    # Numbers of one width in Avro, so that all events have one size.
                    "sequence": 1_048_576 + index,
                },
                "actor": actors[number],
                "resources": [
                    {
                        "tenant": tenant,
                        "type": "customer_record",
                        "id": record_id,
                        "path": f"/customers/{record_id}/contact",
                    }
                ],
                "data_subjects": [{"tenant": tenant, "id_type": "user_id", "id": f"u-{other:06d}"}],
                "source": sources[number % _SOURCES],
                "session": {"id": hexadecimal(16, random), "mfa": True, "issuer": "oidc"},
                "request": {
                    "id": hexadecimal(16, random),
                    "trace_id": hexadecimal(32, random),
                    "span_id": hexadecimal(16, random),
                },
                "purpose": "support case",
                "ticket": "CASE-204417",
                "labels": {"region": "eu-central", "channel": "web"},
                "operation": "read",
                "data_classes": ["contact"],
                "record_count": 1,
                "byte_count": 1_840,
            },
        )


def _actor(tenant: str, number: int) -> dict[str, Any]:
    text = f"u-{number:06d}"
    return {
        "type": "user",
        "tenant": tenant,
        "id_type": "user_id",
        "id": text,
        "email": f"{text}@{tenant}.example.com",
    }


def _source(number: int, agent: str) -> dict[str, Any]:
    return {"ip": f"198.51.100.{number + 10}", "user_agent": agent}  # two digits, one width
