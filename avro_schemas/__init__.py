"""Version 1 of the event families, five of services and the trail's own, and what is derived from their fields.

Shared types are written once under ``types/`` and referred to by full name; ``load`` puts them in
place, so that what is registered stands alone. Nothing here depends on anything but the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

NAMESPACE = "audit.v1"
_FAMILIES = (
    "authentication",
    "data-access",
    "profile-update",
    "admin-action",
    "security-change",
    "system",
)
_EXTENDS = "extends"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value of an event: a scalar, an array of scalars, or a map; never a record."""

    #: Field names joined by dots, ``*`` for the index in an array of records (``targets.*.id``).
    path: str
    #: ``scalar``, ``array`` or ``map``.
    kind: str
    #: Avro type of the value, of an array's elements or of a map's values; ``enum`` for an enum.
    type: str
    logical_type: str | None
    symbols: tuple[str, ...]
    nullable: bool
    #: Whose it is: ``none``, ``actor``, ``target``, ``subject`` or ``unattributed``.
    pii: str
    #: Field of the search index; ``audit.`` begins names that ECS does not have.
    ecs: str
    #: Attribute of OCSF; ``unmapped.`` begins names that OCSF does not have.
    ocsf: str
    doc: str


@dataclass(frozen=True, slots=True)
class Classification:
    """What ECS and OCSF call an event. Type uid of OCSF = class x 100 + activity."""

    ecs_category: tuple[str, ...]
    ecs_type: tuple[str, ...]
    ocsf_class: int
    ocsf_activity: int


def families() -> tuple[str, ...]:
    """The names of the families, as in topics and file names."""
    return _FAMILIES


@cache
def common_fields() -> tuple[str, ...]:
    """The names of the fields that every family begins with."""
    return tuple(field["name"] for field in _read("common.avsc")["fields"])


@cache
def canonical_text(family: str) -> str:
    """The JSON text that is registered: fields in file order, no white space.

    Raises:
        LookupError: There is no such family.
    """
    if family not in _FAMILIES:
        raise LookupError(f"no event family is named {family!r}; there are {', '.join(_FAMILIES)}")
    schema = _read(f"{family}.avsc")
    parent = schema.pop(_EXTENDS)
    if parent != f"{NAMESPACE}.Common":
        raise LookupError(f"{family} extends {parent}, which is not a shared record")
    schema["fields"] = _read("common.avsc")["fields"] + schema["fields"]
    return json.dumps(_inline(schema, set()), ensure_ascii=False, separators=(",", ":"))


def load(family: str) -> dict[str, Any]:
    """The complete schema of a family: common fields, then its own; each named type is written out
    at its first use and named after that. The caller owns the result.

    Raises:
        LookupError: There is no such family.
    """
    schema: dict[str, Any] = json.loads(canonical_text(family))
    return schema


@cache
def leaves(family: str) -> tuple[Leaf, ...]:
    """Every value that an event of the family may have, in schema order."""
    return tuple(_leaves(load(family), "", {}))


@cache
def activity_field(family: str) -> str | None:
    """The enum field that says which activity an event is; None where the family has but one."""
    name = load(family).get("activity")
    return name if isinstance(name, str) else None


@cache
def classification(family: str, activity: str | None = None) -> Classification:
    """What to call an event of a family whose ``activity_field`` has the symbol ``activity``.

    A symbol of a newer schema, or None, gets what holds for the whole family.
    """
    schema = load(family)
    enum: Mapping[str, Any] = {}
    for field in schema["fields"]:
        if field["name"] == schema.get("activity"):
            enum = field["type"]

    def of(attribute: str, otherwise: Any) -> Any:
        return enum.get(attribute, {}).get(activity, otherwise)

    return Classification(
        ecs_category=tuple(of("ecs_category", schema["ecs_category"])),
        ecs_type=tuple(of("ecs_type", schema["ecs_type"])),
        ocsf_class=of("ocsf_classes", schema["ocsf_class"]),
        ocsf_activity=of("ocsf_ids", schema.get("ocsf_activity", 99)),
    )


@cache
def severity_numbers() -> Mapping[str, int]:
    """OCSF's severity_id by the symbol of ``severity``."""
    numbers: dict[str, int] = _read("types/Severity.avsc")["ocsf_ids"]
    return numbers


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        files("avro_schemas").joinpath(name).read_text(encoding="utf-8")
    )
    return content


def _inline(schema: Any, defined: set[str]) -> Any:
    """The schema with each reference to a file under ``types/`` written out the first time."""
    if isinstance(schema, str):
        if not schema.startswith(f"{NAMESPACE}.") or schema in defined:
            return schema
        defined.add(schema)
        inlined = _read(f"types/{schema.removeprefix(f'{NAMESPACE}.')}.avsc")
        # The same as the family's, which it inherits; registries leave it out when they answer.
        del inlined["namespace"]
        return _inline(inlined, defined)
    if isinstance(schema, list):
        return [_inline(branch, defined) for branch in schema]
    complete = dict(schema)
    for part in ("type", "items", "values"):
        if part in complete:
            complete[part] = _inline(complete[part], defined)
    if "fields" in complete:
        complete["fields"] = [_inline(field, defined) for field in complete["fields"]]
    return complete


def _leaves(record: Mapping[str, Any], prefix: str, named: dict[str, Any]) -> Iterator[Leaf]:
    for field in record["fields"]:
        path = prefix + field["name"]
        branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
        inner = _resolve(next(branch for branch in branches if branch != "null"), named)
        items = _resolve(inner.get("items", inner.get("values")), named)
        if inner["type"] == "record":
            yield from _leaves(inner, f"{path}.", named)
        elif inner["type"] == "array" and items["type"] == "record":
            yield from _leaves(items, f"{path}.*.", named)
        else:
            kind = inner["type"] if inner["type"] in ("array", "map") else "scalar"
            value = inner if kind == "scalar" else items
            yield Leaf(
                path=path,
                kind=kind,
                type=value["type"],
                logical_type=value.get("logicalType"),
                symbols=tuple(value.get("symbols", ())),
                nullable="null" in branches,
                pii=field["pii"],
                ecs=field["ecs"],
                ocsf=field["ocsf"],
                doc=field["doc"],
            )


def _resolve(schema: Any, named: dict[str, Any]) -> dict[str, Any]:
    """A type as a mapping; a reference becomes the type that was written out before."""
    if schema is None:
        return {"type": "null"}
    if isinstance(schema, str):
        known: dict[str, Any] = named.get(schema, {"type": schema})
        return known
    if "name" in schema:
        named[f"{schema.get('namespace', NAMESPACE)}.{schema['name']}"] = schema
    resolved: dict[str, Any] = schema
    return resolved
