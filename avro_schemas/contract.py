"""What an event must keep to beyond its Avro schema, and the bundle that the SDKs carry.

``contract.json`` says it once: limits, patterns and the rules of each family. The judge holds every
event to the limits; the SDKs and ``scripts/validate_event_schema.py`` to all of it, before anything
is sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import avro_schemas

BUNDLE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a family, in words; ``content`` is what programs read."""

    doc: str
    content: Mapping[str, Any]


@cache
def limits() -> Mapping[str, int]:
    """Bounds by name: text in characters, the event and map entries in bytes, the rest in elements."""
    found: dict[str, int] = _contract()["limits"]
    return MappingProxyType(found)


@cache
def patterns() -> Mapping[str, str]:
    """What the text at a path looks like, in words."""
    return MappingProxyType({path: one["doc"] for path, one in _contract()["patterns"].items()})


@cache
def rules(family: str) -> tuple[Rule, ...]:
    """The rules of a family beside the limits.

    Raises:
        LookupError: There is no such family.
    """
    avro_schemas.load(family)
    return tuple(Rule(one["doc"], one) for one in _contract()["families"][family])


def bundle() -> dict[str, Any]:
    """All that an SDK needs to validate and encode without a registry, as JSON has it.

    ``families`` maps each name to its ``schema`` (as registered), Avro subject and ``rules``.
    """
    contract = _contract()
    return {
        "format": BUNDLE_FORMAT,
        "limits": contract["limits"],
        "patterns": {path: one["match"] for path, one in contract["patterns"].items()},
        "pattern_docs": dict(patterns()),
        "families": {
            family: {
                "topic": f"audit.raw.{family}",
                "subject": f"audit.raw.{family}-value",
                "rules": [dict(rule.content) for rule in rules(family)],
                "schema": avro_schemas.load(family),
            }
            for family in avro_schemas.families()
        },
    }


@cache
def _contract() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        files("avro_schemas").joinpath("contract.json").read_text(encoding="utf-8")
    )
    return content
