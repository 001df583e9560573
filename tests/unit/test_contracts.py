"""The contract that teams build on: schemas linted, versions compatible, samples and copies current."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pytest
from audit_sdk import asgi
from audit_sdk.codec import encode, validate

import avro_schemas
from avro_schemas import contract, released
from pipeline.codec.limits import Limits
from pipeline.codec.policy import NONE, OWNERS
from pipeline.codec.types import without_logical_types
from pipeline.contracts.compatibility import fingerprint
from pipeline.contracts.event_files import read_events
from pipeline.contracts.fields import marks
from pipeline.contracts.lint import lint
from pipeline.domain.errors import ConfigurationError
from pipeline.generator.load import generate
from pipeline.importers.encode import EventEncoder
from pipeline.settings import Settings

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "samples").glob("*.json")) + sorted(
    (ROOT / "samples/events").glob("*.json")
)
FAMILY = "security-change"

Change = Callable[[dict[str, Any]], object]


def script(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"scripts/{name}", *words],
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": f"{ROOT}:{ROOT / 'sdk/python'}"},
        capture_output=True,
        text=True,
        check=False,
    )


def field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return next(field for field in schema["fields"] if field["name"] == name)


def found(change: Change, *, released_before: bool = True) -> set[tuple[str, str]]:
    """(path, rule) of what the lint says of a changed schema."""
    schema = avro_schemas.load(FAMILY)
    change(schema)
    versions = [avro_schemas.load(FAMILY)] if released_before else []
    return {(finding.path, finding.rule) for finding in lint(FAMILY, schema, versions)}


GOOD = {"name": "extra", "type": ["null", "string"], "default": None, "pii": "actor",
        "ecs": "audit.extra", "ocsf": "unmapped.extra", "doc": "Something more."}  # fmt: skip


@pytest.mark.parametrize("family", avro_schemas.families())
def test_what_is_shipped_keeps_every_rule_and_reads_every_released_version(family: str) -> None:
    assert released.versions(family)
    assert lint(family, avro_schemas.load(family), released.versions(family)) == []


@pytest.mark.parametrize("family", avro_schemas.families())
def test_what_is_shipped_is_released(family: str) -> None:
    assert released.texts(family)[-1] == avro_schemas.canonical_text(family)


def test_a_good_field_may_be_added() -> None:
    assert found(lambda schema: schema["fields"].append(dict(GOOD))) == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s["fields"].append(GOOD | {"doc": ""}), ("extra", "doc")),
        (lambda s: s["fields"].append(GOOD | {"doc": "no full stop"}), ("extra", "doc")),
        (lambda s: s["fields"].append(GOOD | {"pii": "somebody"}), ("extra", "pii")),
        (
            lambda s: s["fields"].append({k: v for k, v in GOOD.items() if k != "pii"}),
            ("extra", "pii"),
        ),
        (lambda s: s["fields"].append(GOOD | {"name": "extraField"}), ("extraField", "name")),
        (lambda s: s["fields"].append(GOOD | {"ecs": ""}), ("extra", "standard_name")),
        (
            lambda s: s["fields"].append({k: v for k, v in GOOD.items() if k != "default"}),
            ("extra", "default"),
        ),
        (lambda s: field(s, "change_kind")["type"].pop("default"), ("change_kind", "default")),
        (lambda s: field(s, "change_kind")["type"]["symbols"].append("Role"), ("change_kind", "name")),
        (lambda s: field(s, "actor").update(pii="actor"), ("actor", "pii")),
        (lambda s: field(s, "actor")["type"].update(name="the_actor"), ("actor", "name")),
        (lambda s: field(s, "reason").update(pii="none"), ("reason", "mark")),
        (lambda s: field(s, "reason").update(pii="target"), ("reason", "mark")),
        (lambda s: field(s, "tenant").update(type="long"), ("tenant", "compatible")),
        (lambda s: s["fields"].remove(field(s, "action")), ("action", "compatible")),
        (
            lambda s: s["fields"].append(GOOD | {"type": "string", "default": "x"}),
            None,
        ),
    ],
)  # fmt: skip
def test_each_rule_is_found_where_it_is_broken(
    change: Change, expected: tuple[str, str] | None
) -> None:
    problems = found(change)

    if expected is None:
        assert problems == set()
    else:
        assert expected in problems


def test_a_mark_holds_for_all_later_versions_even_when_one_in_between_has_none() -> None:
    first, between, now = (avro_schemas.load(FAMILY) for _ in range(3))
    field(between, "reason").pop("pii")
    field(now, "reason")["pii"] = "none"

    assert "mark" in {finding.rule for finding in lint(FAMILY, now, [first, between])}


@pytest.mark.parametrize("family", avro_schemas.families())
def test_every_owner_of_every_family_is_held_and_a_value_that_was_nobodys_may_become_somebodys(
    family: str,
) -> None:
    shipped = avro_schemas.load(family)
    owners = {path: mark for path, mark in marks(shipped).items() if mark in OWNERS}
    for now in (*OWNERS, NONE):
        told = {one.path for one in lint(family, marked(shipped, now), [shipped])}
        assert told == {path for path, was in owners.items() if was != now}


def marked(schema: Any, mark: str) -> Any:
    """A schema with one mark on every value."""
    if isinstance(schema, list):
        return [marked(part, mark) for part in schema]
    if isinstance(schema, dict):
        return {
            name: mark if name == "pii" else marked(part, mark) for name, part in schema.items()
        }
    return schema


def test_compatibility_is_with_every_version_and_not_only_the_last() -> None:
    first, second, now = (avro_schemas.load(FAMILY) for _ in range(3))
    field(now, "ticket")["type"] = ["null", "long"]
    field(second, "ticket")["type"] = ["null", "long"]

    details = [finding.detail for finding in lint(FAMILY, now, [first, second])]

    assert any("with version 1" in detail for detail in details)
    assert not any("with version 2" in detail for detail in details)


def test_a_fingerprint_names_what_decodes_alike() -> None:
    schema = avro_schemas.load(FAMILY)
    other = avro_schemas.load(FAMILY)
    other["doc"] = "Other words."
    third = avro_schemas.load(FAMILY)
    third["fields"].pop()

    assert fingerprint(schema) == fingerprint(other) != fingerprint(third)


@pytest.mark.parametrize("path", SAMPLES, ids=[path.name for path in SAMPLES])
def test_every_sample_keeps_its_contract(path: Path) -> None:
    for sample in read_events(path):
        assert validate(sample.family, sample.event) == []


@pytest.mark.parametrize("family", avro_schemas.families())
def test_the_sample_of_a_family_shows_every_field(family: str) -> None:
    (sample,) = read_events(ROOT / "samples/events" / f"{family}.json")

    assert sample.event.keys() == {one["name"] for one in avro_schemas.load(family)["fields"]}


def test_the_page_of_events_and_the_copies_of_the_sdks_are_current() -> None:
    scripts = (
        "event_page",
        "detection_page",
        "bundle_contracts",
        "make_vectors",
        "python_types",
        "node_types",
    )
    for name in scripts:
        checked = script(f"{name}.py", "--check")
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_limits_are_said_once() -> None:
    said = contract.limits()
    defaults = Settings()

    assert all(getattr(Limits(), name) == value for name, value in said.items())
    for name, limit, reads in (
        ("go/delivery.go", "items", "limits.Items"),
        ("go/middleware.go", "text_chars", "limits.TextChars"),
        ("nodejs/src/express.js", "text_chars", "limits.text_chars"),
        ("nodejs/src/tally.js", "items", "limits.items"),
    ):
        source = (ROOT / "sdk" / name).read_text(encoding="utf-8")
        assert reads in source, name
        assert not re.search(rf"\b{said[limit]}\b", source), name
    assert defaults.text_max_chars == said["text_chars"]
    assert defaults.changes_max == said["changes"]
    for file in (ROOT / "avro_schemas").rglob("*.avsc"):
        assert "at most" not in file.read_text(encoding="utf-8")
    assert said["text_chars"] == asgi._USER_AGENT_MAX_CHARS
    assert str(said["text_chars"]) not in Path(asgi.__file__).read_text(encoding="utf-8")


def test_the_sdk_writes_what_the_pipelines_own_writer_writes() -> None:
    encoder = EventEncoder(dict.fromkeys(avro_schemas.families(), 1))

    for family, event in generate(500, seed=7, start_at_us=1_790_000_000_000_000):
        assert encode(family, event) == encoder.body(family, event)


def test_an_event_file_may_be_json_lines_or_avro(tmp_path: Path) -> None:
    family = "data-access"
    events = [e for f, e in generate(3, seed=1, start_at_us=1, families=[family]) if f == family]
    lines, avro = tmp_path / "events.jsonl", tmp_path / "events.avro"
    lines.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    with avro.open("wb") as file:
        fastavro.writer(file, avro_schemas.load(family), events)

    assert [one.event["event_id"] for one in read_events(lines, family)] == [
        event["event_id"] for event in events
    ]
    assert [validate(one.family, one.event) for one in read_events(avro)] == [[], [], []]


def test_a_line_separator_inside_a_json_string_ends_no_line(tmp_path: Path) -> None:
    sample = json.loads((ROOT / "samples/audit_log_example.json").read_text(encoding="utf-8"))
    sample["event"]["metadata"] = {"note": "one\u2028two\x85three"}
    lines = tmp_path / "events.jsonl"
    line = json.dumps(sample, ensure_ascii=False)
    lines.write_text(f"{line}\r\n{line}\n", encoding="utf-8", newline="")

    assert [one.place for one in read_events(lines)] == ["line 1", "line 2"]
    assert [one.event["metadata"]["note"] for one in read_events(lines)] == [
        "one\u2028two\x85three"
    ] * 2


@pytest.mark.parametrize(
    ("name", "value"), [("event_id", "not-a-uuid"), ("occurred_at", 2**62), ("occurred_at", -1)]
)
def test_values_of_an_avro_file_are_judged_as_it_has_them(
    tmp_path: Path, name: str, value: Any
) -> None:
    family = "data-access"
    events = [e for f, e in generate(2, seed=1, start_at_us=1, families=[family]) if f == family]
    file = tmp_path / "events.avro"
    file.write_bytes(a_container(avro_schemas.load(family), events[0], {**events[1], name: value}))

    good, bad = [validate(one.family, one.event) for one in read_events(file)]

    assert good == []
    assert [problem.path for problem in bad] == [name]


def a_container(schema: Any, *events: Any) -> bytes:
    """An Avro file that says the logical types, with values that no writer of theirs would write."""
    out, block = io.BytesIO(), io.BytesIO()
    meta = {"avro.codec": b"null", "avro.schema": json.dumps(schema).encode()}
    header = {"magic": b"Obj\x01", "meta": meta, "sync": bytes(16)}
    fastavro.schemaless_writer(out, fastavro.read.HEADER_SCHEMA, header)
    for event in events:
        fastavro.schemaless_writer(block, without_logical_types(schema), event)
    fastavro.schemaless_writer(out, {"type": "long"}, len(events))
    fastavro.schemaless_writer(out, {"type": "bytes"}, block.getvalue())
    return out.getvalue() + bytes(16)


@pytest.mark.parametrize("codec", ["deflate", "bzip2", "xz"])
def test_a_damaged_avro_file_is_a_clear_error(tmp_path: Path, codec: str) -> None:
    family, file = "data-access", tmp_path / "events.avro"
    events = [e for f, e in generate(9, seed=1, start_at_us=1, families=[family]) if f == family]
    with file.open("wb") as out:
        fastavro.writer(out, avro_schemas.load(family), events, codec=codec)
    whole = file.read_bytes()
    file.write_bytes(whole[:-300] + bytes(20) + whole[-280:])

    with pytest.raises(ConfigurationError, match="no readable Avro file"):
        list(read_events(file))


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"{", b"[" * 100_000, b"Obj\x01rubbish", b'{"tenant": "acme"}']
)
def test_a_file_that_is_no_events_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "events"
    file.write_bytes(content)

    with pytest.raises(ConfigurationError, match=str(file)):
        list(read_events(file))


def test_the_script_says_path_and_rule_and_its_exit_status_tells(tmp_path: Path) -> None:
    sample = json.loads((ROOT / "samples/audit_log_example.json").read_text(encoding="utf-8"))
    del sample["event"]["tenant"]
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(sample), encoding="utf-8")

    good = script("validate_event_schema.py", "events", "samples/audit_log_example.json")
    bad = script("validate_event_schema.py", "events", str(broken), "--output", "json")
    schemas = script("validate_event_schema.py", "schemas")

    assert (good.returncode, bad.returncode, schemas.returncode) == (0, 1, 0)
    (row,) = json.loads(bad.stdout)
    assert (row["path"], row["rule"]) == ("tenant", "required")
