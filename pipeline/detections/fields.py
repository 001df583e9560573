"""What several parts of a rule file are made of: durations, words of a closed list, paths of events."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

import avro_schemas
from pipeline.contracts.fields import fields_of
from pipeline.detections.lines import Part, Unreadable
from pipeline.domain.detection.aggregate import INTAKE
from pipeline.domain.detection.rules import DAY_US, HOUR_US, MINUTE_US

_NAMED_FIELDS: Final = ("actor", "target", "family", "place.country")
_UNITS: Final = {"s": 1_000_000, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US}


def duration_us(part: Part, what: str) -> int:
    """``90s``, ``15m``, ``1h``, ``10d``."""
    match = re.fullmatch(r"([0-9]+)([smhd])", str(part.value))
    if match is None:
        raise Unreadable(part.line, f"{what} is no duration, such as 15m")
    return int(match[1]) * _UNITS[match[2]]


def word(part: Part, what: str, words: Any) -> Any:
    """The member of an enumeration."""
    try:
        return words(part.value)
    except ValueError:
        known = ", ".join(words)
        raise Unreadable(part.line, f"{what} is none of {known}") from None


@cache
def paths_of(family: str) -> frozenset[str]:
    """Every path that an event of a family can have."""
    if family == INTAKE:
        return frozenset({"log", "dead", "all"})
    return frozenset(fields_of(avro_schemas.load(family)))


def check_path(part: Part, path: str, families: set[str]) -> None:
    """Raises ``Unreadable`` if a family has no such field."""
    general = re.sub(r"\.\d+(?=\.|$)", ".*", path)
    if path in _NAMED_FIELDS:
        return
    for family in families:
        if general not in paths_of(family):
            raise Unreadable(part.line, f"{path} is no field of {family}")
