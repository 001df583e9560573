"""A vendor's record, read by path whatever the letter case of its keys, and what is left of it.

Each value that becomes a field is taken once; the rest goes to the event's metadata, so that an
import loses nothing that fits the limits and says how many values did not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

# The judge's limits; a test holds them equal to the defaults of ``pipeline.settings``.
TEXT_CHARS: Final = 500
KEY_BYTES: Final = 64
VALUE_BYTES: Final = 256
ITEMS: Final = 64
CHANGES: Final = 20
DROPPED: Final = "import.dropped"

_DEPTH_MAX = 12
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
# Last parts of paths whose values open something: never carried over.
_SECRET = re.compile(
    r"(secret|password|passwd|passphrase|token|credential|private_?key|authorization)s?$",
    re.IGNORECASE,
)
# What stands there in place of a value.
_BLANK = frozenset({"", "-", "unknown", "redacted", "null", "none", "n/a"})

Path = tuple[str, ...]


def fits_text(text: str) -> bool:
    """Whether the judge takes it as a text: its length, its characters, its encoding."""
    return 0 < len(text) <= TEXT_CHARS and is_clean(text)


def is_clean(text: str) -> bool:
    """No control characters but tab and line ends, no half of a surrogate pair."""
    return text.isprintable() or all(
        letter in "\t\n\r" or unicodedata.category(letter) not in ("Cc", "Cs") for letter in text
    )


class VendorRecord:
    """One record. Paths name keys from the top; an index stands for an element of an array."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._record = record
        self._taken: set[Path] = set()
        self.dropped = 0  # values that had no place, without those that ``rest`` still finds

    def peek(self, *path: str | int) -> Any:
        """The value at a path, which stays in the rest; None if there is none."""
        value: Any = self._record
        for step in path:
            if isinstance(step, int):
                value = value[step] if isinstance(value, list) and step < len(value) else None
            elif isinstance(value, Mapping):
                value = value[step] if step in value else _ignoring_case(value, step)
            else:
                return None
        return value

    def take(self, *path: str | int) -> Any:
        """The value at a path, whole; the rest has none of it."""
        self._taken.add(tuple(str(step).lower() for step in path))
        return self.peek(*path)

    def text(self, *path: str | int) -> str | None:
        """A text or number that fits a text field, taken; None, and left, if it does not."""
        value = self.peek(*path)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            return None
        text = value.strip()
        if text.lower() in _BLANK or not fits_text(text):
            return None
        self.take(*path)
        return text

    def token(self, *path: str | int) -> str | None:
        """A text that may stand in clear: letters, digits and a few signs, no spaces, no ``@``."""
        text = self.text(*path)
        if text is not None and _TOKEN.fullmatch(text) is None:
            self._taken.discard(tuple(str(step).lower() for step in path))
            return None
        return text

    def flag(self, *path: str | int) -> bool | None:
        """A boolean, also as the text that some vendors write."""
        value = self.peek(*path)
        if isinstance(value, str):
            value = {"true": True, "yes": True, "false": False, "no": False}.get(value.lower())
        if not isinstance(value, bool):
            return None
        self.take(*path)
        return value

    def count(self, *path: str | int) -> int | None:
        """A number that is not negative."""
        value = self.peek(*path)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
            return None
        self.take(*path)
        return value

    def size(self, *path: str | int) -> int:
        """How many elements the array at a path has; 0 if there is none."""
        value = self.peek(*path)
        return len(value) if isinstance(value, list) else 0

    def rest(self) -> dict[str, str]:
        """What was not taken, as texts by dotted path, in the record's order, within the limits.

        Values that do not fit, and secrets, are counted under ``import.dropped``.
        """
        kept: dict[str, str] = {}
        dropped = self.dropped
        for path, value in self._leaves(self._record, ()):
            key = ".".join(path)
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if len(kept) < ITEMS - 1 and _fits_map(key, text) and not _is_secret(path):
                kept[key] = text
            else:
                dropped += 1
        if dropped:
            kept[DROPPED] = str(dropped)
        return kept

    def _leaves(self, value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
        if value is None or value == "" or tuple(part.lower() for part in path) in self._taken:
            return
        if isinstance(value, Mapping) and len(path) < _DEPTH_MAX:
            for key, inner in value.items():
                # ``p_`` keys come from a collector's ingest, not from the vendor.
                if path or not key.startswith("p_"):
                    yield from self._leaves(inner, (*path, key))
        elif isinstance(value, list) and len(path) < _DEPTH_MAX:
            for index, inner in enumerate(value):
                yield from self._leaves(inner, (*path, str(index)))
        elif isinstance(value, (Mapping, list)):
            yield path, "…" * VALUE_BYTES  # too deep to carry over: counted as one that did not fit
        else:
            yield path, value


def _ignoring_case(value: Mapping[str, Any], key: str) -> Any:
    lowered = key.lower()
    return next((inner for name, inner in value.items() if name.lower() == lowered), None)


def _fits_map(key: str, text: str) -> bool:
    if not key or not is_clean(key) or not is_clean(text):
        return False
    return len(key.encode()) <= KEY_BYTES and len(text.encode()) <= VALUE_BYTES


def _is_secret(path: Path) -> bool:
    return any(_SECRET.search(part) for part in path[-2:])
