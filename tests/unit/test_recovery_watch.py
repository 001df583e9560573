"""A worker whose tables never recover ends; one that gets on, or whose broker is away, does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, repeat
from types import SimpleNamespace
from typing import Any

import pytest

from agents.tables import watch_recovery
from pipeline.domain.errors import Unavailable


async def watched(
    remaining: Iterator[int], *, in_recovery: bool = True, is_away: bool = False
) -> None:
    """Look a hundred times, with a limit of ten looks."""
    looks = 0
    turn = asyncio.Event()

    def left() -> dict[str, int]:
        nonlocal looks
        looks += 1
        if looks == 100:
            turn.set()
        return {"changelog": next(remaining), "empty": -1}

    def away() -> bool:
        return is_away

    app: Any = SimpleNamespace(
        in_recovery=in_recovery,
        tables=SimpleNamespace(recovery=SimpleNamespace(active_remaining=left)),
    )
    watch = asyncio.create_task(watch_recovery(app, 0.01, away, look_every_s=0.001))
    seen = asyncio.create_task(turn.wait() if in_recovery else asyncio.sleep(0.1))
    await asyncio.wait([watch, seen], return_when=asyncio.FIRST_COMPLETED)
    seen.cancel()
    if watch.done():
        watch.result()
        return
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch


@pytest.mark.anyio
async def test_a_recovery_that_stands_still_ends_the_worker() -> None:
    with pytest.raises(Unavailable, match="lacks 7 changelog records, and none came"):
        await watched(repeat(7))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("remaining", "words"),
    [
        (count(1_000, -1), {}),
        (repeat(0), {}),
        (repeat(7), {"in_recovery": False}),
        (repeat(7), {"is_away": True}),
    ],
    ids=["it gets on", "nothing is lacking", "it is over", "the broker is away"],
)
async def test_a_worker_goes_on(remaining: Iterator[int], words: dict[str, bool]) -> None:
    await watched(remaining, **words)
