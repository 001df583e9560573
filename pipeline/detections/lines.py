"""YAML with the line of every value, read strictly.

Anchors, aliases, tags and keys that stand twice are refused: nothing of a rule may mean something else
than it says. ``yes``, ``no``, ``on`` and times are texts, as in YAML 1.2; numbers are decimal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

TEXT_MAX: Final = 256 * 1024
_DEPTH_MAX: Final = 12
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+")
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None, "~": None, "": None}


class Unreadable(Exception):
    """A text is no rule; ``line`` is where."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Part:
    """A value and its line. ``value`` is a scalar, a list of parts, or a dict of parts."""

    value: Any
    line: int

    def mapping(self, what: str) -> dict[str, Part]:
        """Raises ``Unreadable``, as all that follow, if it is something else."""
        if not isinstance(self.value, dict):
            raise Unreadable(self.line, f"{what} is no mapping")
        return self.value

    def list(self, what: str) -> list[Part]:
        if not isinstance(self.value, list):
            raise Unreadable(self.line, f"{what} is no list")
        return self.value

    def text(self, what: str) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            raise Unreadable(self.line, f"{what} is no text")
        return self.value.strip()

    def number(self, what: str) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise Unreadable(self.line, f"{what} is no number")
        return self.value

    def integer(self, what: str) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise Unreadable(self.line, f"{what} is no integer")
        return self.value

    def texts(self, what: str) -> tuple[str, ...]:
        return tuple(part.text(what) for part in self.list(what))

    def scalars(self, what: str) -> tuple[Any, ...]:
        """The scalar, or the scalars of the list."""
        parts = self.value if isinstance(self.value, list) else [self]
        for part in parts:
            if isinstance(part.value, list | dict) or part.value is None:
                raise Unreadable(part.line, f"{what} is no text, number, or list of them")
        if not parts:
            raise Unreadable(self.line, f"{what} is empty")
        return tuple(part.value for part in parts)


def read(text: str) -> Part:
    """The document of a text.

    Raises:
        Unreadable: It is not in this part of YAML.
    """
    if len(text) > TEXT_MAX:
        raise Unreadable(1, f"longer than {TEXT_MAX} characters")
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if getattr(event, "anchor", None) or isinstance(event, yaml.AliasEvent):
                raise Unreadable(event.start_mark.line + 1, "anchors are not taken")
            if getattr(event, "tag", None):
                raise Unreadable(event.start_mark.line + 1, "tags are not taken")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        raise Unreadable(mark.line + 1 if mark else 1, str(problem)) from None
    except RecursionError:
        raise Unreadable(1, "too deep") from None
    if node is None:
        raise Unreadable(1, "it is empty")
    return _part(node, 0)


def _part(node: Any, depth: int) -> Part:
    line = node.start_mark.line + 1
    if depth > _DEPTH_MAX:
        raise Unreadable(line, "too deep")
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Part] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None or name == "<<":
                raise Unreadable(key.start_mark.line + 1, "a key is no text")
            if name in found:
                raise Unreadable(key.start_mark.line + 1, f"{name} stands twice")
            found[name] = _part(value, depth + 1)
        return Part(found, line)
    if isinstance(node, yaml.SequenceNode):
        return Part([_part(one, depth + 1) for one in node.value], line)
    return Part(_scalar(node), line)


def _scalar(node: Any) -> Any:
    text: str = node.value
    if node.style is not None:  # quoted, or a block
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
