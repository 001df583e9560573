"""The rules that every event schema of this repository keeps, beside Avro's own.

A finding names the family, the path and the rule. Rules: ``name`` (fields and enum symbols in
lower_snake_case, types in CamelCase), ``doc`` (a sentence on every type and field), ``pii`` (said of
every value: whose it is, or ``none``), ``default`` (optional values have one, so has every field that
a later version adds, so has every enum), ``standard_name`` (ECS and OCSF names), ``mark`` (personal data
stays whose it was: the mark is never taken back, nor another's) and ``compatible`` (FULL_TRANSITIVE
against every released version).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.codec.policy import ACTOR, NONE, OWNERS
from pipeline.contracts.compatibility import incompatibilities
from pipeline.contracts.fields import fields_of, marks, named_types

_FIELD: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_TYPE: Final = re.compile(r"([A-Z][a-z0-9]+)+")
_MARKS: Final = frozenset({NONE, *OWNERS})
_NAMED: Final = ("record", "enum", "fixed")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, where, and by which rule."""

    family: str
    path: str
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.family}: {self.path or '(schema)'}: {self.rule}: {self.detail}"


def lint(
    family: str, schema: Mapping[str, Any], released: Sequence[Mapping[str, Any]]
) -> list[Finding]:
    """Everything wrong with a family's schema, given the versions that were released, oldest first."""
    findings = [Finding(family, *found) for found in _Walk(schema).type(schema, "")]
    if released:
        known = {path for earlier in released for path in fields_of(earlier)}
        findings += [
            Finding(family, path, "default", "a field that a later version adds needs a default")
            for path, field in fields_of(schema).items()
            if path not in known and "default" not in field
        ]
    findings += [
        Finding(family, path, "mark", f"was {was!r} and cannot become {now!r}")
        for path, (was, now) in changed_marks(released, schema).items()
    ]
    for number, earlier in enumerate(released, 1):
        findings += [
            Finding(family, where, "compatible", f"with version {number}: {what}")
            for where, what in incompatibilities(schema, earlier)
        ]
    return findings


def changed_marks(
    earlier: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]
) -> dict[str, tuple[str, str]]:
    """Paths that an earlier version gave an owner and ``schema`` gives another, or calls ``none``: that
    owner, and the mark now. Erasing the first owner would miss the values. What ``schema`` does not
    mark is the actor's; what was ``none`` may become somebody's.
    """
    held: dict[str, str] = {}
    for version in earlier:
        for path, mark in marks(version).items():
            if mark in OWNERS:
                held.setdefault(path, str(mark))
    now = {path: str(mark) if mark in _MARKS else ACTOR for path, mark in marks(schema).items()}
    return {path: (was, now[path]) for path, was in held.items() if now.get(path, was) != was}


class _Walk:
    """Yields (path, rule, detail) of a schema; each named type is looked at once."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._named = named_types(schema)
        self._seen: set[str] = set()

    def type(self, schema: Any, path: str) -> Iterator[tuple[str, str, str]]:
        """A type, and what is inside it."""
        if isinstance(schema, list):
            for branch in schema:
                yield from self.type(branch, path)
            return
        if not isinstance(schema, dict):
            return
        kind = schema.get("type")
        if kind in _NAMED and schema["name"] not in self._seen:
            self._seen.add(schema["name"])
            yield from _named(schema, path)
            for field in schema.get("fields", ()):
                yield from self._field(field, path)
        elif kind == "array":
            yield from self.type(schema.get("items"), f"{path}.*")
        elif kind == "map":
            yield from self.type(schema.get("values"), path)
        elif isinstance(kind, (dict, list)):
            yield from self.type(kind, path)

    def _field(self, field: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
        name = str(field.get("name", ""))
        path = f"{prefix}.{name}" if prefix else name
        if not _FIELD.fullmatch(name):
            yield path, "name", "not in lower_snake_case"
        if not _is_sentence(field.get("doc")):
            yield path, "doc", "no sentence that says what it is"
        if _may_be_left_out(field["type"]) and "default" not in field:
            yield path, "default", "may be left out, so it needs a default"
        if self._holds_values(field["type"]):
            if field.get("pii") not in _MARKS:
                yield path, "pii", f"not one of {', '.join(sorted(_MARKS))}"
            for standard in ("ecs", "ocsf"):
                if not field.get(standard):
                    yield path, "standard_name", f"{standard} does not say what the value is called"
        elif "pii" in field:
            yield path, "pii", "stands on the values inside, not on what holds them"
        yield from self.type(field["type"], path)

    def _holds_values(self, kind: Any) -> bool:
        """Whether values stand in the field itself: a scalar, an array of scalars, or a map."""
        if isinstance(kind, list):
            return all(self._holds_values(branch) for branch in kind)
        if isinstance(kind, str):
            named = self._named.get(kind.rpartition(".")[2])
            return named is None or named["type"] != "record"
        if kind["type"] == "array":
            return self._holds_values(kind["items"])
        return bool(kind["type"] != "record")


def _named(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    name = schema["name"]
    if not _TYPE.fullmatch(name):
        yield path, "name", f"type {name} is not in CamelCase"
    if not _is_sentence(schema.get("doc")):
        yield path, "doc", f"type {name} has no sentence that says what it is"
    if schema["type"] != "enum":
        return
    if "default" not in schema:
        yield path, "default", f"enum {name} has none: an older reader could not read a new symbol"
    for symbol in schema["symbols"]:
        if not _FIELD.fullmatch(symbol):
            yield path, "name", f"symbol {symbol} of {name} is not in lower_snake_case"


def _may_be_left_out(kind: Any) -> bool:
    if isinstance(kind, list):
        return "null" in kind
    return isinstance(kind, dict) and kind.get("type") in ("array", "map")


def _is_sentence(text: object) -> bool:
    return isinstance(text, str) and len(text) > 2 and text[-1] == "."
