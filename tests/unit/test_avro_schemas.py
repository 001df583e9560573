"""The schemas keep their own rules: documented, owned, named, and able to grow."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import avro_schemas
from pipeline.domain.logs import FAMILIES
from pipeline.testing import an_event, events

OWNERS = {"none", "actor", "target", "subject", "unattributed"}
# What an event cannot do without; every other field has a default, so that it may be taken away.
REQUIRED = {
    "event_id", "occurred_at", "tenant", "action", "outcome", "producer", "actor",
    "producer.service", "actor.type", "actor.tenant", "actor.id_type",
    "targets.tenant", "targets.id_type", "targets.id", "resources.tenant", "resources.type",
    "data_subjects.tenant", "data_subjects.id_type", "data_subjects.id",
    "operation", "self_service", "change_kind", "changes.path",
}  # fmt: skip
# Values that tell of a person, whatever schema they stand in.
PERSONAL = re.compile(
    r"(^|\.)(id|name|email|ip|port|domain|user_agent|device_id|reason|purpose|description|labels"
    r"|metadata|old|new|path|export_destination)$"
)
CLEAR_BY_REVIEW = {"request.id", "resources.*.id", "changes.*.path"}


@pytest.fixture(params=FAMILIES, scope="module")
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def fields(schema: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every field of a schema that is written out there, with its path."""
    found = []
    for field in schema["fields"]:
        path = prefix + field["name"]
        found.append((path, field))
        branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
        for branch in branches:
            inner = branch.get("items", branch) if isinstance(branch, dict) else branch
            if isinstance(inner, dict) and inner["type"] == "record":
                found += fields(inner, f"{path}.")
    return found


def named_types(schema: Any) -> list[dict[str, Any]]:
    """Every record and enum that is written out in a schema."""
    if isinstance(schema, list):
        return [found for part in schema for found in named_types(part)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema.get("type") in ("record", "enum") else []
    inner = [schema.get("items"), *schema.get("fields", ())]
    if isinstance(schema.get("type"), (dict, list)):
        inner.append(schema["type"])
    return own + [found for part in inner for found in named_types(part)]


def test_families_are_those_of_the_raw_topics() -> None:
    assert avro_schemas.families() == FAMILIES


def test_unknown_family_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(LookupError, match="authentication, data-access"):
        avro_schemas.load("weather")


def test_schema_stands_alone(family: str) -> None:
    schema = avro_schemas.load(family)

    parse_schema(schema)

    assert "extends" not in schema
    assert json.loads(avro_schemas.canonical_text(family)) == schema


def test_loading_again_gives_a_schema_of_ones_own(family: str) -> None:
    avro_schemas.load(family)["fields"].clear()

    assert avro_schemas.load(family)["fields"]


def test_every_named_type_is_written_out_once(family: str) -> None:
    names = [schema["name"] for schema in named_types(avro_schemas.load(family))]

    assert len(names) == len(set(names))


def test_every_field_and_type_is_documented(family: str) -> None:
    schema = avro_schemas.load(family)

    for path, field in fields(schema):
        assert field["doc"].endswith("."), path
    for named in named_types(schema):
        assert named["doc"].endswith("."), named["name"]


def test_names_are_snake_case(family: str) -> None:
    for path, _field in fields(avro_schemas.load(family)):
        assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*", path), path


def test_only_required_fields_have_no_default(family: str) -> None:
    schema = avro_schemas.load(family)

    without = {path for path, field in fields(schema) if "default" not in field}

    assert without <= REQUIRED


def test_nullable_fields_are_null_by_default(family: str) -> None:
    for path, field in fields(avro_schemas.load(family)):
        if isinstance(field["type"], list):
            assert field["type"][0] == "null", path
            assert field["default"] is None, path


def test_every_leaf_says_whose_it_is_and_what_others_call_it(family: str) -> None:
    for leaf in avro_schemas.leaves(family):
        assert leaf.pii in OWNERS, leaf.path
        assert re.fullmatch(r"@timestamp|[a-z_]+(\.[a-z_]+)*", leaf.ecs), leaf.path
        assert re.fullmatch(r"[a-z_]+(\[\])?(\.[a-z_]+(\[\])?)*", leaf.ocsf), leaf.path


def test_every_leaf_has_an_index_field_of_its_own(family: str) -> None:
    names = [leaf.ecs for leaf in avro_schemas.leaves(family)]

    assert len(names) == len(set(names))


def test_a_shared_index_field_has_one_type_in_all_families() -> None:
    types: dict[str, set[tuple[str, str]]] = {}
    for name in FAMILIES:
        for leaf in avro_schemas.leaves(name):
            types.setdefault(leaf.ecs, set()).add((leaf.kind, leaf.type))

    assert {ecs: found for ecs, found in types.items() if len(found) > 1} == {}


def test_what_tells_of_a_person_is_sealed(family: str) -> None:
    for leaf in avro_schemas.leaves(family):
        if PERSONAL.search(leaf.path) and leaf.path not in CLEAR_BY_REVIEW:
            assert leaf.pii != "none", leaf.path


def test_maps_are_sealed_since_their_keys_are_anybodys(family: str) -> None:
    assert all(leaf.pii != "none" for leaf in avro_schemas.leaves(family) if leaf.kind == "map")


def test_marks_of_a_party_stand_only_inside_it(family: str) -> None:
    for leaf in avro_schemas.leaves(family):
        if leaf.pii == "subject":
            assert leaf.path.startswith("data_subjects.*."), leaf.path
        if leaf.pii == "target":
            assert leaf.path.startswith(("targets.*.", "changes.*.")), leaf.path


def test_there_are_no_floats(family: str) -> None:
    assert {leaf.type for leaf in avro_schemas.leaves(family)} <= {
        "string", "long", "int", "boolean", "enum"
    }  # fmt: skip


def test_an_enum_may_grow_because_it_has_a_default(family: str) -> None:
    for named in named_types(avro_schemas.load(family)):
        if named["type"] == "enum":
            assert named["default"] in named["symbols"], named["name"]


def test_tables_by_symbol_name_symbols_that_exist(family: str) -> None:
    for named in named_types(avro_schemas.load(family)):
        for attribute in ("ocsf_ids", "ocsf_classes", "ecs_type", "ecs_category"):
            if named["type"] == "enum":
                assert set(named.get(attribute, ())) <= set(named["symbols"]), named["name"]


# ECS 9, event.category: the event.type values that are expected with each.
EXPECTED_TYPES = {
    "iam": {"admin", "change", "creation", "deletion", "group", "info", "user"},
    "configuration": {"access", "change", "creation", "deletion", "info"},
    "authentication": {"start", "end", "info"},
    "database": {"access", "change", "info", "error"},
    "file": {"access", "change", "creation", "deletion", "info"},
    "host": {"access", "change", "end", "info", "start"},
}


def test_event_types_are_those_that_ecs_expects_of_the_category(family: str) -> None:
    activity = avro_schemas.activity_field(family)
    leaf = next((leaf for leaf in avro_schemas.leaves(family) if leaf.path == activity), None)

    for symbol in (None, "of_a_newer_schema", *(leaf.symbols if leaf else ())):
        known = avro_schemas.classification(family, symbol)
        expected = set().union(*(EXPECTED_TYPES[category] for category in known.ecs_category))
        assert known.ecs_category
        assert known.ecs_type
        assert set(known.ecs_type) <= expected, symbol
        assert known.ocsf_class in (3002, 3004, 3007, 6001, 6002, 6005)


def test_an_export_is_classified_as_ocsf_does() -> None:
    export = avro_schemas.classification("data-access", "export")

    assert (export.ocsf_class, export.ocsf_activity) == (6001, 7)


def test_severity_has_the_numbers_of_ocsf() -> None:
    assert avro_schemas.severity_numbers()["critical"] == 5


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_valid_event_survives_writing_and_reading(family: str, data: st.DataObject) -> None:
    schema = parse_schema(avro_schemas.load(family))
    event = data.draw(events(family))

    buffer = io.BytesIO()
    schemaless_writer(buffer, schema, event, strict=True)
    buffer.seek(0)
    back: Any = schemaless_reader(buffer, schema, None)

    assert str(back["event_id"]) == event["event_id"]
    assert {**back, "event_id": 0, "occurred_at": 0} == {**event, "event_id": 0, "occurred_at": 0}


@pytest.mark.parametrize(("writer", "reader"), [(1, 2), (2, 1)])
def test_a_field_added_with_a_default_is_compatible_both_ways(
    family: str, writer: int, reader: int
) -> None:
    second = avro_schemas.load(family)
    second["fields"].append({"name": "risk", "type": ["null", "string"], "default": None})
    versions = {1: parse_schema(avro_schemas.load(family)), 2: parse_schema(second)}
    buffer = io.BytesIO()
    schemaless_writer(buffer, versions[writer], an_event(family))

    buffer.seek(0)
    back: Any = schemaless_reader(buffer, versions[writer], versions[reader])

    assert back["tenant"] == "acme"
    assert back.get("risk") is None


def test_a_symbol_that_this_release_does_not_know_reads_as_the_default() -> None:
    second = avro_schemas.load("data-access")
    operation = next(field for field in second["fields"] if field["name"] == "operation")
    operation["type"]["symbols"].append("print")
    buffer = io.BytesIO()
    schemaless_writer(buffer, parse_schema(second), an_event("data-access", operation="print"))

    buffer.seek(0)
    back: Any = schemaless_reader(
        buffer, parse_schema(second), parse_schema(avro_schemas.load("data-access"))
    )

    assert back["operation"] == "other"
