"""Builders and strategies of valid events, for the tests of every part.

``an_event`` gives one event of which only the facts that matter need be said; ``events`` gives a
Hypothesis strategy over everything that a family's schema and the judge's limits allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import avro_schemas
from pipeline.codec.compiler import Decode, compile_decoder
from pipeline.codec.judge import check_characters, event_id
from pipeline.codec.limits import Limits
from pipeline.codec.policy import SealingPolicy
from pipeline.codec.wire import HEADER_BYTES

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

EVENT_ID: Final = "0199c1f0-0000-7000-8000-000000000001"
OCCURRED_AT_US: Final = 1_760_000_000_000_000  # 2025-10-09 08:53:20 UTC
TENANT: Final = "acme"
TENANTS: Final = ("acme", "globex", "initech")

# What a family requires beyond the common fields.
_REQUIRED: Final[Mapping[str, Mapping[str, Any]]] = {
    "authentication": {"action": "session.start"},
    "data-access": {"action": "record.read", "operation": "read"},
    "profile-update": {"action": "profile.update", "self_service": True},
    "admin-action": {"action": "project.create", "operation": "create"},
    "security-change": {"action": "role.grant", "change_kind": "role"},
    "system": {"action": "producer.heartbeat", "operation": "heartbeat"},
}


def an_actor(number: str | None = "u-1", **changes: Any) -> dict[str, Any]:
    """A user of the tenant; without an id an anonymous one."""
    actor: dict[str, Any] = {
        "type": "user" if number is not None else "anonymous",
        "tenant": TENANT,
        "id_type": "user_id" if number is not None else "unknown",
        "id": number,
        "name": None,
        "email": None,
        "roles": [],
    }
    return {**actor, **changes}


def a_target(number: str = "u-2", **changes: Any) -> dict[str, Any]:
    """Another user of the tenant, acted upon."""
    target = {
        "relation": "target",
        "type": "user",
        "tenant": TENANT,
        "id_type": "user_id",
        "id": number,
        "name": None,
        "email": None,
    }
    return {**target, **changes}


def a_data_subject(number: str = "u-3", **changes: Any) -> dict[str, Any]:
    """A person whose data was touched."""
    return {"tenant": TENANT, "id_type": "user_id", "id": number, **changes}


def an_event(family: str, **changes: Any) -> dict[str, Any]:
    """A valid event with every field of its schema, those not in ``changes`` at their default."""
    event: dict[str, Any] = {
        field["name"]: field["default"]
        for field in avro_schemas.load(family)["fields"]
        if "default" in field
    }
    event |= {
        "event_id": EVENT_ID,
        "occurred_at": OCCURRED_AT_US,
        "tenant": TENANT,
        "outcome": "success",
        "producer": {
            "service": "records",
            **dict.fromkeys(("version", "instance", "environment", "epoch", "sequence")),
        },
        "actor": an_actor(),
        **_REQUIRED[family],
    }
    return {**event, **changes}


def read_as_worker(family: str, value: bytes) -> dict[str, Any]:
    """The flat values, clear and sealed, that the worker reads of a record's value.

    Raises:
        InvalidRecord: The worker would send it to the dead letter.
    """
    clear, groups = _decoder(family)(value, HEADER_BYTES)
    check_characters(clear, *groups.values())
    event_id(clear["event_id"])
    return {**clear, **{path: found for group in groups.values() for path, found in group.items()}}


def events(family: str, *, tenants: tuple[str, ...] = TENANTS) -> SearchStrategy[dict[str, Any]]:
    """Any valid event of the family: every branch, empty and full arrays, all kinds of text.

    Tenants are of ``tenants``; ``imported`` is false; ids are UUIDs but nil; an anonymous actor
    has no id.
    """
    from hypothesis import strategies as st

    named: dict[str, SearchStrategy[Any]] = {}
    fixed: Mapping[str, SearchStrategy[Any]] = {
        "event_id": st.uuids().filter(lambda uuid: uuid.int > 0).map(str),
        "occurred_at": st.integers(OCCURRED_AT_US - 10**15, OCCURRED_AT_US),
        "imported": st.just(False),
        "tenant": st.sampled_from(tenants),
    }
    record = _record(avro_schemas.load(family), fixed, named, tenant=st.sampled_from(tenants))
    return record.map(_consistent)


@cache
def _decoder(family: str) -> Decode:
    leaves = ((leaf.path, leaf.kind, leaf.pii) for leaf in avro_schemas.leaves(family))
    return compile_decoder(avro_schemas.load(family), SealingPolicy.of(leaves), Limits())


def _consistent(event: dict[str, Any]) -> dict[str, Any]:
    """What no schema can say: an actor without an id has no kind of id, and is anonymous."""
    actor = event["actor"]
    if actor["id"] is None or actor["type"] == "anonymous":
        actor = {**actor, "type": "anonymous", "id_type": "unknown", "id": None}
    return {**event, "actor": actor}


def _record(
    schema: Mapping[str, Any],
    fixed: Mapping[str, SearchStrategy[Any]],
    named: dict[str, SearchStrategy[Any]],
    *,
    tenant: SearchStrategy[str],
) -> SearchStrategy[dict[str, Any]]:
    from hypothesis import strategies as st

    fields = {}
    for field in schema["fields"]:
        name = field["name"]
        fields[name] = fixed[name] if name in fixed else _value(field["type"], name, named, tenant)
    strategy = st.fixed_dictionaries(fields)
    named[schema["name"]] = strategy
    return strategy


def _value(
    schema: Any,
    field: str,
    named: dict[str, SearchStrategy[Any]],
    tenant: SearchStrategy[str],
) -> SearchStrategy[Any]:
    """Values of one type that the judge takes: lengths and sizes within its limits."""
    from hypothesis import strategies as st

    if isinstance(schema, list):
        return st.one_of(*(_value(branch, field, named, tenant) for branch in schema))
    if isinstance(schema, str) and schema.rpartition(".")[2] in named:
        return named[schema.rpartition(".")[2]]
    kind = schema if isinstance(schema, str) else schema["type"]
    by_kind: Mapping[str, Callable[[], SearchStrategy[Any]]] = {
        "null": st.none,
        "boolean": st.booleans,
        "int": lambda: st.integers(0, 65_535),
        "long": lambda: st.integers(-(2**63), 2**63 - 1),
        "string": lambda: tenant if field == "tenant" else _text(1, 40),
        "record": lambda: _record(schema, {}, named, tenant=tenant),
        "array": lambda: st.lists(_value(schema["items"], field, named, tenant), max_size=3),
        "map": lambda: st.dictionaries(_text(1, 16), _text(0, 60), max_size=3),
        "enum": lambda: st.sampled_from(schema["symbols"]),
    }
    strategy = by_kind[kind]()
    if kind == "enum":
        named[schema["name"]] = strategy
    return strategy


def _text(least: int, most: int) -> SearchStrategy[str]:
    """Text of any script, without control characters and halves of surrogate pairs."""
    from hypothesis import strategies as st

    letters = st.characters(exclude_categories=("Cc", "Cs"))
    return st.text(letters, min_size=least, max_size=most)
