"""The compiled form of the hot path beside the form in Python: one fate and the same bytes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import avro_schemas
from pipeline.codec.decoders import Decoders
from pipeline.codec.judge import Horizon
from pipeline.codec.limits import Limits
from pipeline.codec.registry import RegisteredSchema
from pipeline.codec.wire import frame
from pipeline.domain.errors import Reason
from pipeline.domain.merkle import Frontier, parents
from pipeline.entrypoints.preparing import policies
from pipeline.keys.subjects import Subject
from pipeline.native import native, runs
from pipeline.testing import (
    OCCURRED_AT_US,
    TENANTS,
    a_data_subject,
    a_target,
    an_actor,
    an_event,
    events,
)
from sinks.compiled import CompiledSealer
from tests.sizes import examples
from tests.unit.native_support import (
    FAMILIES,
    WORLD,
    Record,
    Schemas,
    World,
    bodies,
    check_same,
    is_compiled,
    value_of,
)

pytestmark = pytest.mark.skipif(native is None, reason="the compiled form is not built here")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_usual_event_is_compiled(family: str) -> None:
    (event,) = check_same(WORLD, family, value_of(family, an_event(family)))

    assert is_compiled(event)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_valid_event_gives_the_same_bytes(family: str) -> None:
    @settings(max_examples=examples(60), deadline=None)
    @given(st.lists(events(family), min_size=1, max_size=4))
    def check(chosen: list[dict[str, Any]]) -> None:
        check_same(WORLD, family, *[value_of(family, event) for event in chosen])

    check()


@pytest.mark.parametrize("family", FAMILIES)
def test_any_changed_bytes_have_the_same_fate(family: str) -> None:
    @settings(max_examples=examples(60), deadline=None)
    @given(events(family), st.data())
    def check(event: dict[str, Any], data: st.DataObject) -> None:
        value = bytearray(value_of(family, event))
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(value) - 1))
            match data.draw(st.sampled_from(["byte", "cut", "insert", "remove"])):
                case "byte":
                    value[at] = data.draw(st.integers(0, 255))
                case "cut":
                    del value[at + 1 :]
                case "insert":
                    value[at:at] = data.draw(st.binary(min_size=1, max_size=4))
                case "remove":
                    del value[at : at + 1]
            if not value:
                value = bytearray(b"\0")
        if value[:5] != frame(FAMILIES.index(family), b""):
            value[:5] = frame(FAMILIES.index(family), b"")
        check_same(WORLD, family, bytes(value))

    check()


def test_every_truncation_has_the_same_fate() -> None:
    event = an_event("data-access", targets=[a_target()], data_subjects=[a_data_subject()])
    value = value_of("data-access", event)

    check_same(WORLD, "data-access", *[value[:size] for size in range(len(value) + 1)], None)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "email": st.none() | st.text(max_size=8),
            "score": st.none() | st.floats(allow_nan=True),
            "flags": st.dictionaries(st.text(max_size=3), st.integers(-9, 9), max_size=2),
            "changes": st.lists(st.just("c"), max_size=64) | st.just(["c"] * 20),
            "sizes": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
            "blob": st.none() | st.binary(max_size=6),
            "owner": st.none()
            | st.fixed_dictionaries(
                {
                    "tenant": st.sampled_from([*TENANTS, "nobody"]),
                    "id_type": st.sampled_from(["user_id", "unknown"]),
                    "id": st.none() | st.sampled_from(["u-1", "u-9", ""]),
                    "note": st.none() | st.text(max_size=4),
                }
            ),
            "steps": st.lists(
                st.fixed_dictionaries(
                    {
                        "name": st.text(max_size=3),
                        "subject": st.none() | st.just("s"),
                        "free": st.none() | st.just("f"),
                    }
                ),
                max_size=3,
            ),
        },
    )
)
@example({"email": "someone@example.com", "owner": None})
@example({"changes": ["c"] * 20})
@example({"changes": ["c"] * 21})
def test_fields_of_a_newer_schema_have_the_same_owners_and_places(more: dict[str, Any]) -> None:
    check_same(
        WORLD, "authentication", value_of("authentication", an_event("authentication", **more))
    )


@pytest.mark.parametrize("tenant", ["acme", "stranger"])
def test_a_party_of_a_newer_schema_is_sealed_to_the_actor_and_searchable(tenant: str) -> None:
    approver = {"tenant": tenant, "id_type": "user_id", "id": "u-7"}
    named = {f"approver.{name}": value for name, value in approver.items()}

    (event,) = check_same(
        WORLD, "admin-action", value_of("admin-action", an_event("admin-action", approver=approver))
    )

    assert is_compiled(event)
    (blob,) = event.blobs
    assert blob.subject_ref == event.actor_ref
    assert event.opened.items() >= named.items()
    assert not named.keys() & event.clear.keys()
    document = json.loads(bodies([event]).splitlines()[1])
    assert document["audit.unmapped"] == named


def nested(depth: int, make: Callable[[Any, int], Any], innermost: list[Any]) -> dict[str, Any]:
    """A schema with records inside each other, each as ``make`` wraps it."""
    inner: Any = {"type": "record", "name": "R0", "fields": innermost}
    for level in range(1, depth):
        field = {"name": "f", "type": make(inner, level)}
        inner = {"type": "record", "name": f"R{level}", "fields": [field]}
    added = {"name": "deep", "type": make(inner, depth)}
    schema = avro_schemas.load("data-access")
    return {**schema, "fields": [*schema["fields"], added]}


def of_array(inner: Any, _level: int) -> Any:
    return {"type": "array", "items": inner}


def optional(inner: Any, _level: int) -> Any:
    return [inner, "null"]


@pytest.mark.parametrize(
    "schema",
    [
        nested(7, of_array, []),
        nested(7, of_array, [{"name": n, "type": "null"} for n in ("tenant", "id_type", "id")]),
        nested(60, optional, [{"name": "x", "type": "int"}]),
        nested(3, of_array, [{"name": "x" * 10_000, "type": "int"}]),
    ],
    ids=["multiplied", "multiplied parties", "deep", "long names"],
)
def test_a_schema_that_a_program_would_explode_for_is_left_to_python(
    schema: dict[str, Any],
) -> None:
    class One(Schemas):
        async def by_id(self, schema_id: int, subject: str) -> RegisteredSchema:
            return RegisteredSchema(schema_id, json.dumps(schema), {subject: 1})

    decoders = Decoders(One(), policies(), Limits())
    horizon = Horizon.of(future_s=300, retention_days=2557, import_retention_days=7305)
    sealer = CompiledSealer(decoders, native.KeyRing(), limits=Limits(), horizon=horizon)
    asyncio.run(decoders.decoder("audit.raw.data-access", 1))

    value = frame(1, value_of("data-access", an_event("data-access"))[5:] + b"\0")
    assert list(sealer.seal("audit.raw.data-access", [Record(0, value)])) == [None]


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": [a_target(str(number)) for number in range(20)]},
        {"targets": [a_target(str(number)) for number in range(64)]},
        {"targets": [a_target("u-1", name="Ann", relation="on_behalf_of"), a_target("u-1")]},
        {"targets": [a_target("u-2", tenant="globex"), a_target("x", id_type="unknown")]},
        {"targets": [a_target(tenant="stranger")]},
        {"actor": an_actor(None)},
        {"actor": an_actor("u-1", name='Zoë "Z" Quinn \\ °', email="a@b")},
        {"actor": an_actor("u-1", name="tab\there")},
        {"actor": an_actor("u-1", name="\x85")},
        {"actor": an_actor("u-1", id_type="unknown")},
        {"actor": an_actor("u-1", tenant="stranger")},
        {"tenant": "stranger"},
        {"event_id": "0199C1F0-0000-7000-8000-00000000000A"},
        {"event_id": "00000000-0000-0000-0000-000000000000"},
        {"event_id": "not a uuid"},
        {"imported": True},
        {"occurred_at": OCCURRED_AT_US + 300_000_000},
        {"occurred_at": OCCURRED_AT_US + 300_000_001},
        {"occurred_at": OCCURRED_AT_US - 2557 * 86_400_000_000},
        {"occurred_at": OCCURRED_AT_US - 2557 * 86_400_000_000 - 1},
        {"occurred_at": -1},
        {"source": {"ip": "192.0.2.7", "domain": "b.example"}},
        {"source": {"ip": "not-an-ip", "domain": "a.example"}},
        {"source": {"ip": "2001:db8::1"}},
        {"source": {"ip": "192.0.2.07"}},
        {"source": {"ip": "::ffff:192.0.2.7"}},
        {"source": {"ip": "fe80::1%eth0"}},
    ],
)
def test_edges_have_the_same_fate(changes: dict[str, Any]) -> None:
    schema = avro_schemas.load("admin-action")
    if "source" in changes:
        source = next(f for f in schema["fields"] if f["name"] == "source")["type"]
        record = source[1] if isinstance(source, list) else source
        empty = {field["name"]: field.get("default") for field in record["fields"]}
        changes = {"source": {**empty, **changes["source"]}}

    check_same(WORLD, "admin-action", value_of("admin-action", an_event("admin-action", **changes)))


def test_ids_with_what_separates_them_are_other_subjects() -> None:
    joined = an_event("data-access", actor=an_actor("u\x1f1"))

    assert not check_same(WORLD, "data-access", value_of("data-access", joined))


def test_an_erased_subject_is_sealed_to_nobody() -> None:
    world = World()
    value = value_of("data-access", an_event("data-access", actor=an_actor("u-7")))
    check_same(world, "data-access", value)

    world.store.erased = set(world.store.rows)
    world.keys.forget()
    world.plain._keys.forget()
    (event,) = check_same(world, "data-access", value)
    assert event.blobs == []
    assert len(world.ring) == 0


def test_a_key_that_is_in_use_stays_in_memory_and_others_leave() -> None:
    world = World(cache_size=4)
    often = value_of("data-access", an_event("data-access", actor=an_actor("often")))

    for number in range(12):
        other = an_event("data-access", actor=an_actor(f"u-{number}"))
        check_same(world, "data-access", often, value_of("data-access", other))
        assert len(world.ring) <= 4
    assert world.ring.take_used(Subject("acme", "user_id", "often"))


def test_events_of_both_forms_stand_side_by_side() -> None:
    many = [
        an_event("data-access"),
        an_event("data-access", actor=an_actor("u-1", name="tab\there")),
        an_event("data-access", targets=[a_target(str(n)) for n in range(30)]),
        an_event("data-access", actor=an_actor("u-2")),
    ]
    for number, event in enumerate(many):
        event["event_id"] = f"0199c1f0-0000-7000-8000-0000000001{number:02}"

    sealed = check_same(WORLD, "data-access", *[value_of("data-access", event) for event in many])

    assert [(at, compiled, len(run)) for at, compiled, run in runs(sealed)] == [
        (0, True, 1),
        (1, False, 2),
        (3, True, 1),
    ]


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40), st.integers(0, 40))
def test_a_frontier_grows_the_same(leaves: list[bytes], cut: int) -> None:
    ours = Frontier().append(leaves[:cut], native.parents).append(leaves[cut:], native.parents)

    assert ours == Frontier().append(leaves[:cut], parents).append(leaves[cut:], parents)


def test_a_bomb_costs_nothing() -> None:
    two_hundred_million = b"\x80\x88\xde\xbe\x01"
    value = value_of("data-access", an_event("data-access"))

    for at in range(5, len(value)):
        bomb = value[:at] + two_hundred_million
        prepared = WORLD.prepare(WORLD.compiled, "data-access", bomb)
        assert prepared.dead[0].reason in {
            Reason.TRUNCATED,
            Reason.LIMIT_EXCEEDED,
            Reason.MALFORMED,
            Reason.INVALID_UTF8,
        }


def test_a_child_process_draws_other_nonces() -> None:
    code = """
import os, sys
from tests.unit.test_native import World, value_of, an_event
world, value = World(), value_of("data-access", an_event("data-access"))
event = world.prepare(world.compiled, "data-access", value).events[0]
reading, writing = os.pipe()
if os.fork() == 0:
    mine = world.prepare(world.compiled, "data-access", value).events[0].blobs[0].nonce
    os.write(writing, mine)
    os._exit(0)
mine = world.prepare(world.compiled, "data-access", value).events[0].blobs[0].nonce
sys.exit(0 if os.read(reading, 12) != mine else 1)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_tenants_and_keys_that_change_meanwhile_keep_nobody_waiting() -> None:
    """Whoever waits for a lock that sealing holds must not hold the interpreter that it needs."""
    world = World()
    values = [value_of("data-access", an_event("data-access"))] * 50
    check_same(world, "data-access", values[0])
    ended = threading.Event()

    def change() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            world.compiled._compiled.know_tenants(TENANTS)
            world.ring.put(
                ("acme", "user_id", f"x-{number % 9}"), bytes(16), bytes(32), bytes(32), 0
            )
            world.ring.drop_key(("acme", "user_id", f"x-{number % 9}"))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    others = [threading.Thread(target=change, daemon=True) for _ in range(2)]
    try:
        for other in others:
            other.start()
        for _ in range(30):
            assert len(world.prepare(world.compiled, "data-access", *values).events) == len(values)
    finally:
        ended.set()
        sys.setswitchinterval(interval)
    for other in others:
        other.join(10)
        assert not other.is_alive()
