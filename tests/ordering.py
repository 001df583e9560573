"""Which files of a folder's tests come first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest


def put_first(items: list[pytest.Item], folder: Path, names: Sequence[str]) -> None:
    """Sort the tests of a folder in place: these files first, in this order, the others as they are; tests
    of other folders keep their places.
    """
    turns = {name: turn for turn, name in enumerate(names)}
    places = [place for place, item in enumerate(items) if item.path.parent == folder]
    ours = sorted(
        (items[place] for place in places), key=lambda item: turns.get(item.path.name, len(turns))
    )
    for place, item in zip(places, ours, strict=True):
        items[place] = item
