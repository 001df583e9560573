"""Erasing one person out of a trail: how long until no interface gives their data.

The person is the actor of every event of theirs, spread evenly over the trail and its families. The
clock runs from the start of the command that carries an approved request out, its imports included, to
its certificate; a worker runs beside it, whose followers are abreast.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import psycopg

from benchmark.pairs import SCRATCH
from benchmark.places import ROOT, Place, Places
from pipeline.entrypoints.cli.kafka import producer
from pipeline.generator.load import generate
from pipeline.importers.encode import EventEncoder

PERSON = "u-erased-by-the-bench"
_STORED_MAX_S = 3_600.0
_LOOK_EVERY_S = 2.0
_ABREAST = """
SELECT (SELECT coalesce(sum(size), 0) FROM log_heads),
    (SELECT coalesce(min(total), 0) FROM (
        SELECT sum(next_leaf) AS total FROM follower_position
        WHERE follower IN ('index', 'archive') GROUP BY follower
    ) AS followers)
"""


def run_erasure(
    places: Places, schema_ids: Mapping[str, int], *, events: int, of_person: int, tenant: str
) -> dict[str, float]:
    """Seconds until the key and the tombstone, and until *inaccessible since*."""
    places.empty_topics()
    with places.place(object_leaves=50_000) as place:
        environment = {
            **place.environment,
            "AUDIT_SIGNING_KEY_FILE": str(SCRATCH / "erasure-signing.json"),
            "AUDIT_LOG_ORIGIN": "bench.example.org",
            "AUDIT_ERASURE_WAIT_S": "120",
        }
        (SCRATCH / "erasure-signing.json").unlink(missing_ok=True)
        _cli(environment, "signing-key", "create")
        worker = subprocess.Popen(
            [sys.executable, "-m", "pipeline.entrypoints.cli", "worker"], env=environment
        )
        try:
            print(f"erasure: {events:,} events, {of_person:,} of one person")
            _publish(place, EventEncoder(schema_ids), events, of_person, tenant)
            _wait_abreast(place, events)
            return {"erasure_events": events, **_erase(environment, tenant, of_person)}
        finally:
            worker.terminate()
            worker.wait(60)


def _publish(place: Place, encoder: EventEncoder, events: int, of_person: int, tenant: str) -> None:
    sending = producer(place.settings, **{"queue.buffering.max.messages": 200_000})
    for family, event in _events(events, of_person, tenant):
        record = encoder.encode(family, event)
        while True:
            try:
                sending.produce(record.topic, key=record.key, value=record.value)
                break
            except BufferError:
                sending.poll(0.1)
        sending.poll(0)
    sending.flush()


def _events(events: int, of_person: int, tenant: str) -> Iterator[tuple[str, dict[str, Any]]]:
    every = events // of_person
    now_us = time.time_ns() // 1000
    made = generate(
        events, seed=time.time_ns(), start_at_us=now_us - 60_000_000, span_us=50_000_000,
        tenants=[tenant],
    )  # fmt: skip
    for number, (family, event) in enumerate(made):
        if number % every == 0 and number // every < of_person:
            actor = {**event["actor"], "id_type": "user_id", "id": PERSON, "tenant": tenant}
            event = {**event, "actor": actor}  # noqa: PLW2901
        yield family, event


def _wait_abreast(place: Place, events: int) -> None:
    deadline = time.monotonic() + _STORED_MAX_S
    with psycopg.connect(
        place.settings.database_admin_url.get_secret_value(), autocommit=True
    ) as connection:
        while True:
            row = connection.execute(_ABREAST).fetchone()
            leaves, followed = (int(found) for found in row or (0, 0))
            if leaves >= events and followed >= leaves:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{leaves} of {events} leaves, {followed} in every store")
            time.sleep(_LOOK_EVERY_S)


def _erase(environment: Mapping[str, str], tenant: str, of_person: int) -> dict[str, float]:
    person = ("--tenant", tenant, "--id-type", "user_id", "--subject", PERSON)
    asked = _cli(
        environment | {"AUDIT_OPERATOR": "one"},
        *("erase", *person, "--reason", "a bench", "--yes", "-o", "json"),
    )
    request = str(json.loads(asked)["request"])
    _cli(environment | {"AUDIT_OPERATOR": "two"}, "erase", "approve", request, "--no-run")
    began_at, began = time.time(), time.monotonic()
    done = json.loads(_cli(environment, "erase", "resume", request, "-o", "json"))
    took_s = time.monotonic() - began
    at = {
        step["step"]: datetime.fromisoformat(step["done_at"]).timestamp()
        for step in done["steps"]
        if step["done_at"]
    }
    counts = {step["step"]: step["counts"] for step in done["steps"]}
    print(json.dumps({step: round(moment - began_at, 2) for step, moment in at.items()}))
    # Of the events that are made for the person, those whose actor is anonymous are nobody's.
    affected = int(counts["leaf"].rpartition("leaves ")[2])
    if done["state"] != "inaccessible" or affected < 0.95 * of_person:
        raise RuntimeError(f"not erased: {done}")
    return {
        "erasure_of_person": affected,
        "erasure_leaf_s": round(at["leaf"] - began_at, 2),
        "erasure_key_s": round(at["tombstone"] - at["leaf"], 2),
        "erasure_inaccessible_s": round(at["certified"] - began_at, 2),
        "erasure_command_s": round(took_s, 2),
    }


def _cli(environment: Mapping[str, str], *words: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", *words],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    return done.stdout
