"""The program of the compiled sealer for one writer's schema: every path that an event can have,
whose it is and which field of the document it becomes; read by ``pipeline/native/src/program.rs``.

The same walk as ``pipeline.codec.decoder_source``, with arrays of records written out by index. What
has no place in a program (more records than are written out, an unusual type) the sealer leaves to
the form in Python.
"""

from __future__ import annotations

import json
from typing import Any

import avro_schemas
from pipeline.codec.limits import Limits
from pipeline.codec.policy import ACTOR, NONE, SUBJECT, TARGET, UNATTRIBUTED, SealingPolicy
from pipeline.codec.types import Node
from sinks.document_shapes import PEOPLE, PERSON, SUBJECTS, TARGETS
from sinks.documents import SERVER_FIELDS
from sinks.index_fields import fields_of
from sinks.judging import FIRST_PARTY

_WRITTEN_OUT = 20  # elements of an array of records
# Arrays of records inside each other multiply, with or without a leaf at the end.
_STEPS_MAX = 20_000
_PATH_BYTES_MAX = 1_000_000  # of all paths together
_TEXTS = ("string", "enum")
# What names a subject, and what addresses and hosts are found by: of any other type, left to Python.
_TEXT_MEMBERS = ("tenant", "id_type", "id")
_TEXT_FIELDS = ("source.ip", "source.domain")
_DERIVED = {
    "timestamp": "@timestamp",
    "created": "event.created",
    "ingested": "event.ingested",
    "hash": "event.hash",
    "log": "audit.log",
    "leaf_index": "audit.leaf_index",
    "offset": "audit.offset",
    "schema_id": "audit.schema_id",
    "late": "audit.late",
    "actor_ref": "audit.actor.ref",
    "subject_ref": "audit.subject_ref",
    "unmapped": "audit.unmapped",
    "related_user": "related.user",
    "related_ip": "related.ip",
    "related_hosts": "related.hosts",
    "source_ip": "source.ip",
    "source_domain": "source.domain",
    "source_address": "source.address",
}
_USERS = {"target_user": "user.target", "effective_user": "user.effective"}
_ROLES = {
    "event_id": "event_id",
    "tenant": "tenant",
    "action": "action",
    "outcome": "outcome",
    "severity": "severity",
    "actor_type": "actor.type",
    "actor_id": "actor.id",
    "occurred_at": "occurred_at",
    "imported": "imported",
}
_PLAIN_KINDS = ("int", "long", "boolean")

Op = dict[str, Any]


class NoProgram(ValueError):
    """Events of this schema are left to the form in Python."""


def write_program(family: str, root: Node, policy: SealingPolicy, limits: Limits) -> str:
    """The program, as JSON.

    Raises:
        NoProgram: The schema is too large for one, or two of its values share a place.
    """
    return _Writer(family, policy, limits).write(root)


class _Writer:
    def __init__(self, family: str, policy: SealingPolicy, limits: Limits) -> None:
        self._family = family
        self._policy = policy
        self._limits = limits
        self._fields = fields_of(family)
        self._paths: dict[str, dict[str, Any]] = {}
        self._groups: dict[str, int] = {ACTOR: 0}
        self._arrays = {
            field: (number, sorted(members))
            for number, (field, members) in enumerate(sorted(self._fields.groups.values()))
        }
        self._names: dict[str, str] = {}  # field → the path that fills it
        self._steps = 0
        self._path_bytes = 0

    def write(self, root: Node) -> str:
        ops = self._record(root, "", "", None)
        order = sorted(self._paths, key=str.encode)
        number = {path: at for at, path in enumerate(order)}
        fields = sorted({*self._names, *self._arrays, *self._derived_fields()}, key=str.encode)
        field = {name: at for at, name in enumerate(fields)}
        activity = (
            avro_schemas.activity_field(self._family)
            if self._family in avro_schemas.families()
            else None
        )
        program = {
            "family": self._family,
            "ops": _numbered(ops, number),
            "paths": [self._placed(self._paths[path], field) for path in order],
            "groups": [self._group(prefix, number) for prefix in self._groups],
            "fields": fields,
            "arrays": [
                {"field": field[name], "members": members}
                for name, (_number, members) in self._arrays.items()
            ],
            "roles": {role: number.get(path) for role, path in _ROLES.items()}
            | {"activity": number.get(activity) if activity else None},
            "derived": self._derived(field),
        }
        return json.dumps(program, separators=(",", ":"))

    # --- the walk ---

    def _record(self, node: Node, prefix: str, pattern: str, party: int | None) -> list[Op]:
        ops: list[Op] = []
        for name, child, declared in node.fields:
            inner = f"{prefix}.{name}" if prefix else name
            inner_pattern = f"{pattern}.{name}" if pattern else name
            ops += self._field(child, declared, inner, inner_pattern, party)
        return ops

    def _field(
        self, node: Node, declared: object, prefix: str, pattern: str, party: int | None
    ) -> list[Op]:
        self._step()
        if node.kind == "null":
            return []
        if node.kind == "union":
            branches = [
                None
                if branch.kind == "null"
                else self._field(branch, declared, prefix, pattern, party)
                for branch in node.items
            ]
            return [{"op": "union", "branches": branches}]
        if node.kind == "record":
            begin: list[Op] = []
            if pattern != ACTOR and self._policy.is_party(pattern, node.names):
                party = self._party(prefix)
                begin = [{"op": "party", "group": party}]
            return begin + self._record(node, prefix, pattern, party)
        if node.kind == "array" and node.items[0].kind == "record":
            return [{"op": "records", "items": self._elements(node.items[0], prefix, pattern)}]
        return [self._leaf(node, declared, prefix, pattern, party)]

    def _elements(self, element: Node, prefix: str, pattern: str) -> list[list[Op]]:
        items = []
        is_party = self._policy.is_party(f"{pattern}.*", element.names)
        for index in range(min(self._limits.items_at(pattern), _WRITTEN_OUT)):
            self._step()
            inner = f"{prefix}.{index}"
            party = self._party(inner) if is_party else None
            begin: list[Op] = [] if party is None else [{"op": "party", "group": party}]
            items.append(begin + self._record(element, inner, f"{pattern}.*", party))
        return items

    def _leaf(self, node: Node, declared: object, path: str, pattern: str, party: int | None) -> Op:
        kind = node.kind if node.kind in ("array", "map") else "scalar"
        mark = self._policy.mark(pattern, kind, declared)
        if mark == NONE:
            group = None
        elif mark in (TARGET, SUBJECT) and party is not None:
            group = party
        else:
            group = self._groups.setdefault(mark, len(self._groups))
        value = self._value(node, pattern)
        place, is_person = self._place(path)
        is_text = path.rpartition(".")[2] in _TEXT_MEMBERS or any(
            place == {"plain": {"field": field}} for field in _TEXT_FIELDS
        )
        if (is_person or is_text) and value["k"] not in _TEXTS:
            value = {"k": "other"}
        if path in self._paths:
            raise NoProgram(f"two values stand at {path}")
        self._path_bytes += len(path.encode())
        if self._path_bytes > _PATH_BYTES_MAX:
            raise NoProgram("too much of paths")
        self._paths[path] = {
            "path": path,
            "group": group,
            "place": place,
            "is_person": is_person,
        }
        return {"op": "leaf", "path": path, "value": value}

    def _value(self, node: Node, pattern: str) -> dict[str, Any]:
        limits = self._limits
        if node.kind == "string":
            return {"k": "string", "max": limits.text_chars}
        if node.kind in _PLAIN_KINDS:
            return {"k": node.kind}
        if node.kind == "enum":
            plain = all(symbol.isascii() and symbol.isidentifier() for symbol in node.symbols)
            symbols = [f'"{symbol}"' for symbol in node.symbols]
            return {"k": "enum", "symbols": symbols} if plain else {"k": "other"}
        if node.kind == "array":
            item = self._value(node.items[0], pattern)
            if item["k"] in (*_TEXTS, *_PLAIN_KINDS):
                return {"k": "array", "max": limits.items_at(pattern), "item": item}
        if node.kind == "map" and node.items[0].kind == "string":
            return {
                "k": "map",
                "max": limits.items_at(pattern),
                "key_max": limits.label_key_bytes,
                "value_max": limits.label_value_bytes,
            }
        return {"k": "empty" if node.kind in ("array", "map") else "other"}

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _STEPS_MAX:
            raise NoProgram("too large when arrays are written out")

    def _party(self, prefix: str) -> int:
        return self._groups.setdefault(prefix, len(self._groups))

    # --- the document ---

    def _place(self, path: str) -> tuple[Any, bool]:
        """Where a value stands in the document, and whether it names a person."""
        name = self._fields.plain.get(path)
        if name is not None:
            if name in SERVER_FIELDS:
                return "nowhere", False
            if self._names.setdefault(name, path) != path:
                raise NoProgram(f"{name} has two paths")
            return {"plain": {"field": name}}, name in PEOPLE
        array, _, rest = path.partition(".")
        index, _, member = rest.partition(".")
        field, members = self._fields.groups.get(array, ("", frozenset()))
        if index.isascii() and index.isdigit() and member in members:
            number, names = self._arrays[field]
            place = {"array": number, "index": int(index), "member": names.index(member)}
            return {"member": place}, field in (TARGETS, SUBJECTS) and member in PERSON
        return "unmapped", False

    @staticmethod
    def _placed(path: dict[str, Any], field: dict[str, int]) -> dict[str, Any]:
        place = path["place"]
        if isinstance(place, dict) and "plain" in place:
            return path | {"place": {"plain": {"field": field[place["plain"]["field"]]}}}
        return path

    @staticmethod
    def _derived_fields() -> set[str]:
        users = {f"{user}.{name}" for user in _USERS.values() for name in PERSON}
        return {*_DERIVED.values(), *users}

    def _derived(self, field: dict[str, int]) -> dict[str, Any]:
        targets, names = self._arrays.get(TARGETS, (None, []))
        place = {name: at for at, name in enumerate(names)}
        users = {
            role: [field[f"{user}.{name}"] for name in PERSON] for role, user in _USERS.items()
        }
        return {
            **{role: field[name] for role, name in _DERIVED.items()},
            **users,
            "targets": targets,
            "relation": place.get("relation"),
            "person": [place.get(name) for name in PERSON],
        }

    def _group(self, prefix: str, number: dict[str, int]) -> dict[str, Any]:
        kind: Any = "party"
        if prefix == ACTOR:
            kind = "actor"
        elif prefix == UNATTRIBUTED:
            kind = "unattributed"
        elif prefix in FIRST_PARTY:
            kind = {"first_party": {"first": self._groups.get(FIRST_PARTY[prefix])}}
        return {
            "kind": kind,
            "tenant": number.get(f"{prefix}.tenant"),
            "id_type": number.get(f"{prefix}.id_type"),
            "id": number.get(f"{prefix}.id"),
        }


def _numbered(ops: list[Op], number: dict[str, int]) -> list[Op]:
    """The same with paths as numbers."""

    def of(op: Op) -> Op:
        if op["op"] == "leaf":
            return op | {"path": number[op["path"]]}
        if op["op"] == "union":
            branches = [None if ops is None else _numbered(ops, number) for ops in op["branches"]]
            return op | {"branches": branches}
        if op["op"] == "records":
            return op | {"items": [_numbered(ops, number) for ops in op["items"]]}
        return op

    return [of(op) for op in ops]
