"""Write the TypeScript types of every event: `sdk/nodejs/src/events.d.ts`, from `avro_schemas`.

Run it after a change there; a test keeps the file current. `--check` writes nothing and exits 1 if it
is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from generated import ROOT, keep_current

import avro_schemas
from avro_schemas import contract

TARGET = ROOT / "sdk" / "nodejs" / "src" / "events.d.ts"
# What the SDK adds, or the request's context has.
GIVEN = frozenset({"event_id", "occurred_at", "tenant", "outcome", "actor"})
PLAIN = {"string": "string", "boolean": "boolean", "int": "number", "long": "number | bigint"}
HEAD = """\
// Written by scripts/node_types.py from avro_schemas; never edited by hand.
//
// Fields of the events. What an event gets by itself, or from the request's context, may be left out.
"""


def main() -> int:
    """The exit status."""
    return keep_current(__doc__, {TARGET: "\n".join(declarations())})


def declarations() -> Iterator[str]:
    """Each named type once, the families' records last."""
    families = contract.bundle()["families"]
    named: dict[str, Mapping[str, Any]] = {}
    for one in families.values():
        for field in one["schema"]["fields"]:
            collect(field["type"], named)
    yield HEAD
    for name in sorted(named):
        yield from declared(name, named[name])
    common = set(avro_schemas.common_fields())
    first = next(iter(families.values()))["schema"]
    shared = [field for field in first["fields"] if field["name"] in common]
    yield from call_record("CommonFields", "What every call takes.", shared)
    for family, one in families.items():
        schema = one["schema"]
        own = [field for field in schema["fields"] if field["name"] not in common]
        head = f"{schema['name']}Fields extends CommonFields"
        yield from call_record(head, f"{family}: {schema['doc']}", own)
    yield "/** The fields of an event, by family. */"
    yield "export interface FieldsByFamily {"
    for family, one in families.items():
        yield f'  "{family}": {one["schema"]["name"]}Fields;'
    yield "}\n"


def collect(schema: Any, named: dict[str, Mapping[str, Any]]) -> None:
    """Records and enumerations that a schema defines, by name."""
    if isinstance(schema, list):
        for branch in schema:
            collect(branch, named)
    elif isinstance(schema, dict):
        if schema["type"] in ("record", "enum"):
            named[schema["name"]] = schema
        for field in schema.get("fields", ()):
            collect(field["type"], named)
        collect(schema.get("items"), named)


def declared(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """One named type."""
    yield f"/** {schema['doc']} */"
    if schema["type"] == "enum":
        symbols = [f'  | "{symbol}"' for symbol in schema["symbols"]]
        yield "\n".join([f"export type {name} =", *symbols]) + ";\n"
        return
    yield f"export interface {name} {{"
    for field in schema["fields"]:
        yield from declared_field(field, optional="default" in field)
    yield "}\n"


def call_record(head: str, doc: str, fields: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Fields that a call takes; `producer` is the SDK's."""
    yield f"/** {doc} */"
    yield f"export interface {head} {{"
    for field in fields:
        if field["name"] != "producer":
            optional = "default" in field or field["name"] in GIVEN
            yield from declared_field(field, optional=optional)
    yield "}\n"


def declared_field(field: Mapping[str, Any], *, optional: bool) -> Iterator[str]:
    """One property with its description."""
    if "doc" in field:
        yield f"  /** {field['doc']} */"
    kind = typed(field["type"])
    if field["name"] == "occurred_at":
        kind += " | Date"
    yield f"  readonly {field['name']}{'?' if optional else ''}: {kind};"


def typed(schema: Any) -> str:
    """The TypeScript type of an Avro type."""
    if isinstance(schema, list):
        inner = next(branch for branch in schema if branch != "null")
        return f"{typed(inner)} | null"
    if isinstance(schema, str):
        return PLAIN.get(schema) or ("null" if schema == "null" else schema.rpartition(".")[2])
    if schema["type"] in ("record", "enum"):
        return str(schema["name"])
    if schema["type"] == "array":
        return f"readonly {element(schema['items'])}[]"
    if schema["type"] == "map":
        return "Readonly<Record<string, string>>"
    return typed(schema["type"])


def element(schema: Any) -> str:
    """The type of an array's elements."""
    kind = typed(schema)
    return f"({kind})" if "|" in kind else kind


if __name__ == "__main__":
    sys.exit(main())
