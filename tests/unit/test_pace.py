"""Intake waits for a store that is behind, and not for ever for one that stays so."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.domain.records import LeafRange, LogHead
from sinks.pace import Pace

SHARE, PATIENCE_S, WRITE_S = 0.75, 30.0, 0.1


class Follower:
    """Its store answers; ``behind``: and its memory is nearly full."""

    behind = True

    def is_pressed(self) -> bool:
        return self.behind

    def offer(self, fresh: LeafRange) -> None:
        """Kept by nobody."""

    def note_head(self, head: LogHead) -> None:
        """Read by nobody."""


class Intake:
    """Writes without end, a tenth of a second each; time passes only in writes and waits."""

    def __init__(self, follower: Follower) -> None:
        self.now_s = 0.0
        self.pace = Pace(
            [follower],
            share=SHARE,
            patience_s=PATIENCE_S,
            sleep=self.sleep,
            monotonic=lambda: self.now_s,
        )

    async def sleep(self, wait_s: float) -> None:
        self.now_s += wait_s
        await asyncio.sleep(0)

    async def write(self, for_s: float) -> float:
        """Of the seconds that pass, the share that it writes."""
        began_s, writes_s = self.now_s, 0.0
        while self.now_s < began_s + for_s:
            await self.pace.wait()
            self.now_s += WRITE_S
            writes_s += WRITE_S
        return writes_s / (self.now_s - began_s)


@pytest.mark.anyio
async def test_a_store_that_is_behind_is_waited_for_most_of_the_time() -> None:
    assert 0.2 < await Intake(Follower()).write(PATIENCE_S) < 0.3


@pytest.mark.anyio
async def test_a_store_that_stays_behind_slows_the_ledger_no_longer() -> None:
    intake = Intake(Follower())
    await intake.write(2 * PATIENCE_S)

    assert 0.85 < await intake.write(100.0) < 0.95


@pytest.mark.anyio
async def test_patience_comes_back_while_no_store_is_behind() -> None:
    follower = Follower()
    intake = Intake(follower)
    await intake.write(2 * PATIENCE_S)
    follower.behind = False
    assert await intake.write(PATIENCE_S + 1) == pytest.approx(1.0)

    follower.behind = True
    assert 0.2 < await intake.write(PATIENCE_S) < 0.35


@pytest.mark.anyio
async def test_the_wait_ends_as_soon_as_the_store_has_caught_up() -> None:
    follower = Follower()
    intake = Intake(follower)
    intake.now_s = 10.0

    async def caught_up(wait_s: float) -> None:
        intake.now_s += wait_s
        follower.behind = False

    pace = Pace(
        [follower],
        share=SHARE,
        patience_s=PATIENCE_S,
        sleep=caught_up,
        monotonic=lambda: intake.now_s,
    )
    intake.now_s += 1.0
    await pace.wait()
    assert intake.now_s < 11.1
