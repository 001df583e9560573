"""What the fault tests measured: a table at the end, and build/chaos.json."""

from __future__ import annotations

import json
from typing import Any

from tests.chaos.form import BUILD, FULL

_FIGURES: list[dict[str, Any]] = []


def report(test: str, **figures: Any) -> None:
    """Remember the figures of one test."""
    _FIGURES.append({"test": test, **figures})
    BUILD.mkdir(exist_ok=True)
    whole = {"form": "full" if FULL else "short", "tests": _FIGURES}
    (BUILD / "chaos.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def table() -> list[str]:
    """A line per test; a column per figure that any test has, in the order they first came."""
    if not _FIGURES:
        return []
    columns = list(dict.fromkeys(name for row in _FIGURES for name in row))
    rows = [columns, *([_text(row.get(name)) for name in columns] for row in _FIGURES)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(columns))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows]  # fmt: skip


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " ".join(f"{name}:{_text(inner)}" for name, inner in value.items())
    return str(value)
