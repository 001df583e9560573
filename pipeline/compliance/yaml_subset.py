"""The part of YAML that policies need, read strictly.

A mapping or list a line, deeper inside; plain, "double" and 'single' quoted scalars on one line;
``[a, b]``; ``#`` comments. Anchors, tags, block texts and several documents are refused: nothing of a
policy may mean something else than it says. A test holds what is read to a complete YAML reader.
Source: YAML 1.2.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.domain.errors import ConfigurationError

_KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*):(?: +|$)")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_PLAIN = re.compile(r"[A-Za-z0-9_(/][^:#\[\]{},&*!|>'\"%@`]*")


class _Line(NamedTuple):
    number: int
    indent: int
    text: str


def parse(text: str, where: str) -> Any:
    """What a text in this part of YAML says: dicts, lists, texts, integers, booleans, None.

    Raises:
        ConfigurationError: Names the line.
    """
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if not bare or bare.startswith("#") or (number == 1 and bare == "---"):
            continue
        if "\t" in line:
            raise ConfigurationError(f"{where}:{number}: a tab")
        lines.append(_Line(number, len(line) - len(line.lstrip()), bare))
    if not lines:
        raise ConfigurationError(f"{where}: it is empty")
    value, rest = _block(lines, where)
    if rest:
        raise ConfigurationError(
            f"{where}:{rest[0].number}: deeper or shallower than what is before"
        )
    return value


def _block(lines: Sequence[_Line], where: str) -> tuple[Any, Sequence[_Line]]:
    """A mapping or list at the first line's depth, and the lines after it."""
    first = lines[0]
    if first.text.startswith("- ") or first.text == "-":
        return _list(lines, first.indent, where)
    return _mapping(lines, first.indent, where)


def _list(lines: Sequence[_Line], indent: int, where: str) -> tuple[Any, Sequence[_Line]]:
    found: list[Any] = []
    while lines and lines[0].indent == indent and lines[0].text.startswith("- "):
        line, inner = lines[0], lines[0].text[2:].lstrip()
        depth = indent + len(lines[0].text) - len(inner)
        if _KEY.match(inner):
            value, lines = _mapping([_Line(line.number, depth, inner), *lines[1:]], depth, where)
        else:
            value, lines = _scalar(inner, line.number, where), lines[1:]
        found.append(value)
    return found, lines


def _mapping(lines: Sequence[_Line], indent: int, where: str) -> tuple[Any, Sequence[_Line]]:
    found: dict[str, Any] = {}
    while lines and lines[0].indent == indent and not lines[0].text.startswith("- "):
        line = lines[0]
        match = _KEY.match(line.text)
        if match is None:
            raise ConfigurationError(f"{where}:{line.number}: not `name: value`")
        if match[1] in found:
            raise ConfigurationError(f"{where}:{line.number}: {match[1]} stands twice")
        rest, lines = line.text[match.end() :], lines[1:]
        if rest and not rest.startswith("#"):
            found[match[1]] = _scalar(rest, line.number, where)
        elif lines and (
            lines[0].indent > indent
            or (lines[0].indent == indent and lines[0].text.startswith("- "))
        ):
            found[match[1]], lines = _block(lines, where)
        else:
            found[match[1]] = None
    return found, lines


def _scalar(text: str, number: int, where: str) -> Any:
    """A value on one line."""
    refusal = ConfigurationError(f"{where}:{number}: quote this value, or write it on one line")
    if text.startswith("["):
        return _flow(text, number, where)
    if text[0] in "\"'":
        value, rest = _quoted(text, refusal)
        if rest.strip() and not re.match(r" +#", rest):
            raise refusal
        return value
    plain = re.split(r" +#", text, maxsplit=1)[0].rstrip()
    if _INTEGER.fullmatch(plain):
        return int(plain)
    if plain in ("true", "false"):
        return plain == "true"
    if plain in ("null", "~"):
        return None
    # What YAML reads as something else, or not at all, has to be quoted.
    if not _PLAIN.fullmatch(plain) or re.fullmatch(
        r"(?i)y|n|yes|no|on|off|true|false|null|[-+.0-9][-+.:_0-9a-fox]*", plain
    ):
        raise refusal
    return plain


def _quoted(text: str, refusal: ConfigurationError) -> tuple[str, str]:
    """A quoted text and what follows it."""
    if text[0] == "'":
        match = re.match(r"'((?:[^']|'')*)'", text)
        if match is None:
            raise refusal
        return match[1].replace("''", "'"), text[match.end() :]
    match = re.match(r'"((?:[^"\\]|\\["\\])*)"', text)
    if match is None:  # of escapes only those two: others mean other things elsewhere
        raise refusal
    return re.sub(r"\\(.)", r"\1", match[1]), text[match.end() :]


def _flow(text: str, number: int, where: str) -> list[Any]:
    refusal = ConfigurationError(f"{where}:{number}: not a list such as [a, b]")
    found: list[Any] = []
    rest = text[1:].lstrip()
    while not rest.startswith("]"):
        if not rest:
            raise refusal
        if rest[0] in "\"'":
            value, rest = _quoted(rest, refusal)
        else:
            match = re.match(r"[^,\]]+", rest)
            if match is None:
                raise refusal
            value, rest = _scalar(match[0].strip(), number, where), rest[match.end() :]
        found.append(value)
        rest = rest.lstrip()
        if rest.startswith(","):
            rest = rest[1:].lstrip()
        elif not rest.startswith("]"):
            raise refusal
    if rest[1:].strip() and not re.match(r" +#", rest[1:]):
        raise refusal
    return found
