"""Which values a redaction is about: patterns over paths, data classes, and what a value looks like.

``*`` is one part of a path; a pattern takes what begins with it, too: ``changes.*`` takes
``changes.0.old``. A data class is whose the value is by this repository's schemas: ``actor``,
``target``, ``subject`` or ``unattributed``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import avro_schemas
from pipeline.codec.policy import ACTOR, OWNERS
from pipeline.domain.errors import ConfigurationError

_PATTERN = re.compile(r"(\*|[a-z][a-z0-9_]*|[0-9]+)(\.(\*|[a-z][a-z0-9_]*|[0-9]+))*")
_INDEX = re.compile(r"\.[0-9]+(?=\.|$)")
# Groups of digits with at most one separator between them (ISO/IEC 7812-1: 12 to 19 digits).
_CARD = re.compile(r"(?<![0-9])[0-9](?:[ -]?[0-9]){11,18}(?![0-9])")
_EMAIL = re.compile(r"[^\s@<>]+@[^\s@<>]+\.[^\s@<>]+")
_REGULAR = "re:"
DATA_CLASSES = tuple(sorted(OWNERS))


@dataclass(frozen=True, slots=True)
class FieldRule:
    """Values by path, class and look; an empty part takes every value.

    ``value``: ``card-number`` (digits with a valid check digit), ``email``, or ``re:`` and a regular
    expression of Python, searched for in every text of the value.
    """

    fields: tuple[str, ...] = ()
    data_classes: tuple[str, ...] = ()
    value: str = ""

    def check(self) -> None:
        """Raises ``ConfigurationError`` for what can never match, and for a rule that takes everything."""
        if not (self.fields or self.data_classes or self.value):
            raise ConfigurationError("a redaction names fields, data classes or a value")
        for pattern in self.fields:
            if not _PATTERN.fullmatch(pattern):
                raise ConfigurationError(f"field {pattern!r}: not a path such as changes.*.new")
        if unknown := set(self.data_classes) - set(OWNERS):
            raise ConfigurationError(
                f"no such data class: {', '.join(sorted(unknown))};"
                f" there are {', '.join(DATA_CLASSES)}"
            )
        if self.value.startswith(_REGULAR):
            try:
                re.compile(self.value.removeprefix(_REGULAR))
            except re.error as error:
                raise ConfigurationError(f"value {self.value!r}: {error}") from None
        elif self.value not in ("", *_LOOKS):
            raise ConfigurationError(
                f"no such value: {self.value!r}; there are {', '.join(_LOOKS)}, and re:EXPRESSION"
            )

    def takes(self, family: str, path: str, value: Any) -> bool:
        """Whether the rule is about this value."""
        return (
            (not self.fields or any(path_matches(pattern, path) for pattern in self.fields))
            and (not self.data_classes or data_class(family, path) in self.data_classes)
            and (not self.value or _looks(self.value, value))
        )

    def chosen(self, family: str, opened: Mapping[str, Any]) -> tuple[str, ...]:
        """The paths that it takes, in order."""
        return tuple(path for path in sorted(opened) if self.takes(family, path, opened[path]))


def path_matches(pattern: str, path: str) -> bool:
    """Whether a path, or what it begins with, is what the pattern says."""
    wanted, parts = pattern.split("."), path.split(".")
    return len(wanted) <= len(parts) and all(
        want in ("*", part) for want, part in zip(wanted, parts, strict=False)
    )


def data_class(family: str, path: str) -> str:
    """Whose a sealed value is; a path that this release does not know is the actor's."""
    return _classes(family).get(_INDEX.sub(".*", path), ACTOR)


def is_card_number(text: str) -> bool:
    """Whether a text holds a number with a valid check digit. Source: ISO/IEC 7812-1, annex B (Luhn)."""
    for found in _CARD.finditer(text):
        digits = [int(char) for char in found[0] if char.isdigit()]
        doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
        if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and any(digits):
            return True
    return False


def _is_email(text: str) -> bool:
    return _EMAIL.search(text) is not None


_LOOKS = {"card-number": is_card_number, "email": _is_email}


@cache
def _classes(family: str) -> Mapping[str, str]:
    return {leaf.path: leaf.pii for leaf in avro_schemas.leaves(family)}


def _looks(look: str, value: Any) -> bool:
    """Whether any text in a value looks so; keys of maps are texts, too."""
    if isinstance(value, Mapping):
        return any(_looks(look, part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(_looks(look, part) for part in value)
    if value is None or isinstance(value, bool):
        return False
    if look.startswith(_REGULAR):
        return re.search(look.removeprefix(_REGULAR), str(value)) is not None
    return _LOOKS[look](str(value))
