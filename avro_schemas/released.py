"""The schema versions that were released: each stays as it is, and every later one is read with it."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def texts(family: str) -> tuple[str, ...]:
    """The texts that were registered, version 1 first; none of a family that is new."""
    folder = files("avro_schemas").joinpath("released_versions")
    found = {
        int(file.name.split(".")[1]): file.read_text(encoding="utf-8").strip()
        for file in folder.iterdir()
        if file.name.startswith(f"{family}.") and file.name.endswith(".avsc")
    }
    return tuple(found[number] for number in sorted(found))


def versions(family: str) -> list[dict[str, Any]]:
    """The same as JSON; the caller owns the result."""
    return [json.loads(text) for text in texts(family)]
