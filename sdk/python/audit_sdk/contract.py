"""The contract that this release of the SDK carries: schemas, limits, patterns, rules.

``bundle.json`` is made from the trail's own ``avro_schemas`` and never edited by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds: text in characters, the event and map entries in bytes, the rest in elements."""

    event_bytes: int
    text_chars: int
    label_key_bytes: int
    label_value_bytes: int
    items: int
    changes: int


@dataclass(frozen=True, slots=True)
class Family:
    """One event family: where its events go, and what they must keep to."""

    name: str
    topic: str
    subject: str
    schema: Mapping[str, Any]
    rules: Sequence[Mapping[str, Any]]

    @property
    def schema_text(self) -> str:
        """The schema as it is registered: fields in order, no white space."""
        return json.dumps(self.schema, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Contract:
    """Everything at once."""

    limits: Limits
    patterns: Mapping[str, str]
    pattern_docs: Mapping[str, str]
    families: Mapping[str, Family]


@cache
def contract() -> Contract:
    """What ``bundle.json`` says."""
    bundle = json.loads(files("audit_sdk").joinpath("bundle.json").read_text(encoding="utf-8"))
    return Contract(
        limits=Limits(**bundle["limits"]),
        patterns=bundle["patterns"],
        pattern_docs=bundle["pattern_docs"],
        families={name: Family(name, **one) for name, one in bundle["families"].items()},
    )
