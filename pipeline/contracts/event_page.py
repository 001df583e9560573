"""``docs/events.md``: every field of every family, made from the schemas, the contract and the samples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import avro_schemas
from avro_schemas import Leaf, contract
from pipeline.contracts.fields import fields_of

_HEADER: Final = """# Events

Made from `avro_schemas` by `scripts/event_page.py`; a test keeps it current. Do not edit.

A field without a default is **required**. *Whose* says whose personal data a value is: it is sealed
under that person's key; `-` is stored in clear. An ECS name that begins with `audit.`, and an OCSF
name that begins with `unmapped.`, is ours. Examples are from `samples/events`.
"""
_LIMIT_WORDS: Final = {
    "event_bytes": "bytes of one event as Avro",
    "text_chars": "characters of any text",
    "label_key_bytes": "bytes (UTF-8) of a key of `labels` or `metadata`",
    "label_value_bytes": "bytes (UTF-8) of a value there",
    "items": "elements of any other list or map",
    "changes": "elements of `changes`",
}

_TYPE_WORDS: Final = {
    "uuid": "UUID",
    "timestamp-micros": "µs since 1970",
    "string": "text",
    "long": "integer",
    "int": "integer",
}


def event_page(samples: Mapping[str, Mapping[str, Any]]) -> str:
    """The page; ``samples`` has one event per family, with every field."""
    parts = [_HEADER, "## Limits\n", "| at most | of what |\n|---|---|"]
    parts += [f"| {limit:,} | {_LIMIT_WORDS[name]} |" for name, limit in contract.limits().items()]
    parts += ["\n## Texts of a certain form\n", "| field | form |\n|---|---|"]
    parts += [f"| `{path}` | {doc} |" for path, doc in contract.patterns().items()]
    common = {leaf.path for leaf in _common()}
    first = avro_schemas.families()[0]
    parts.append("\n## Fields of every family\n")
    parts += _table(_common(), avro_schemas.load(first), samples[first])
    for family in avro_schemas.families():
        schema = avro_schemas.load(family)
        parts.append(f"\n## {family}\n\n{schema['doc']} Topic `audit.raw.{family}`.\n")
        parts += [f"- {rule.doc}" for rule in contract.rules(family)]
        parts.append("")
        own = [leaf for leaf in avro_schemas.leaves(family) if leaf.path not in common]
        parts += _table(own, schema, samples[family])
    parts.append("\n## Values of the enumerations\n")
    parts += _symbols()
    return "\n".join(parts) + "\n"


def _common() -> list[Leaf]:
    """What every family has."""
    sets = [
        {(leaf.path, leaf.doc) for leaf in avro_schemas.leaves(one)}
        for one in avro_schemas.families()
    ]
    everywhere = set.intersection(*sets)
    return [
        leaf
        for leaf in avro_schemas.leaves(avro_schemas.families()[0])
        if (leaf.path, leaf.doc) in everywhere
    ]


def _table(
    leaves: list[Leaf], schema: Mapping[str, Any], sample: Mapping[str, Any]
) -> Iterator[str]:
    yield "| field | type | whose | ECS | OCSF | example | meaning |\n|---|---|---|---|---|---|---|"
    required = _required(schema)
    for leaf in leaves:
        name = f"**`{leaf.path}`**" if leaf.path in required else f"`{leaf.path}`"
        example = json.dumps(_at(sample, leaf.path), ensure_ascii=False)
        whose = "-" if leaf.pii == "none" else leaf.pii
        doc = leaf.doc.replace("|", "\\|")
        yield (
            f"| {name} | {_type(leaf)} | {whose} | `{leaf.ecs}` | `{leaf.ocsf}` | `{example}` | {doc} |"
        )


def _type(leaf: Leaf) -> str:
    value = _TYPE_WORDS.get(leaf.logical_type or leaf.type, leaf.type)
    shape = {"scalar": value, "array": f"list of {value}", "map": f"map of {value}"}[leaf.kind]
    return f"{shape} or null" if leaf.nullable else shape


def _required(schema: Mapping[str, Any]) -> set[str]:
    """Paths of values that have no default, where the record that holds them is there."""
    return {path for path, field in fields_of(schema).items() if "default" not in field}


def _at(sample: Any, path: str) -> Any:
    """The sample's value at a path; the first element stands for all.

    Raises:
        LookupError: The sample has no value there.
    """
    for name in path.split("."):
        sample = sample[0] if name == "*" else sample[name]
    return sample


def _symbols() -> Iterator[str]:
    yield "| family | field | values |\n|---|---|---|"
    common = {leaf.path for leaf in _common()}
    seen: set[str] = set()
    for family in avro_schemas.families():
        for leaf in avro_schemas.leaves(family):
            if leaf.symbols and leaf.path not in seen:
                where = "all" if leaf.path in common else family
                if where == "all":
                    seen.add(leaf.path)
                symbols = ", ".join(f"`{symbol}`" for symbol in leaf.symbols)
                yield f"| {where} | `{leaf.path}` | {symbols} |"
