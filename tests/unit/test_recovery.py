"""After a rollback the keys in memory are asked for again: the restored ones are the newest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from agents.recovery import Recovery
from pipeline.domain.errors import Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.records import LogHead

HEAD = LogHead(1, LogName("audit.raw.authentication", 0), 5, 10)


class Stores:
    """An archive and a vault with nothing in them, and a ledger that lost nothing."""

    def __init__(self) -> None:
        self.forgotten = 0
        self.searches = 0
        self.asked = 0
        self.archive_is_silent = False
        self.vault_is_down = False
        everything = cast("Any", self)
        self.recovery = Recovery(
            everything,
            everything,
            everything,
            everything,
            self.journal,
            self.forget,
            patience_s=0.2,
        )

    def forget(self) -> None:
        self.forgotten += 1

    async def journal(self, _position: int) -> AsyncIterator[Any]:
        for nothing in ():
            yield nothing

    async def newest_escrow(self) -> str | None:
        self.searches += 1
        await asyncio.sleep(0)
        return None

    async def answers(self) -> None:
        self.asked += 1
        if self.archive_is_silent:
            await asyncio.sleep(60)
        if self.vault_is_down:
            raise Unavailable("s3")

    async def position(self, *_: Any) -> int:
        return 0

    async def read_tenants(self) -> AsyncIterator[Any]:
        if self.vault_is_down:
            raise Unavailable("s3")
        for nothing in ():
            yield nothing

    async def read_escrow(self, _after: str | None) -> AsyncIterator[Any]:
        for nothing in ():
            yield nothing

    async def ranges(self, *_: Any) -> AsyncIterator[Any]:
        for nothing in ():
            yield nothing


@pytest.mark.anyio
async def test_keys_in_memory_are_dropped_once_the_lost_ones_are_back() -> None:
    stores = Stores()

    assert await stores.recovery.recover(HEAD, rolled_back=False) == HEAD
    assert stores.forgotten == 0
    assert await stores.recovery.recover(HEAD, rolled_back=True) == HEAD
    assert stores.forgotten == 1


@pytest.mark.anyio
async def test_a_vault_that_is_away_is_waited_for_only_after_a_rollback() -> None:
    stores = Stores()
    stores.vault_is_down = True

    assert await stores.recovery.recover(HEAD, rolled_back=False) == HEAD
    with pytest.raises(Unavailable):
        await stores.recovery.recover(HEAD, rolled_back=True)
    assert stores.forgotten == 0


@pytest.mark.anyio
async def test_all_logs_of_one_rollback_share_a_search_for_keys() -> None:
    stores = Stores()
    recover = stores.recovery.recover

    await asyncio.gather(*(recover(HEAD, rolled_back=True) for _log in range(20)))

    assert stores.searches <= 2  # one is under way when the others come: they share the next
    assert stores.forgotten == stores.searches


@pytest.mark.anyio
async def test_the_next_rollback_has_a_search_of_its_own() -> None:
    stores = Stores()

    for number in (1, 2, 3):
        await stores.recovery.recover(HEAD, rolled_back=True)
        assert stores.searches == stores.forgotten == number


@pytest.mark.anyio
async def test_a_search_that_failed_is_made_again() -> None:
    stores = Stores()
    stores.vault_is_down = True
    with pytest.raises(Unavailable):
        await stores.recovery.recover(HEAD, rolled_back=True)
    stores.vault_is_down = False

    await stores.recovery.recover(HEAD, rolled_back=True)

    assert (stores.searches, stores.forgotten) == (2, 1)


@pytest.mark.anyio
async def test_a_start_without_evidence_does_not_stand_for_a_rollback() -> None:
    stores = Stores()
    stores.vault_is_down = True

    found = await asyncio.gather(
        stores.recovery.recover(HEAD, rolled_back=False),
        stores.recovery.recover(HEAD, rolled_back=True),
        return_exceptions=True,
    )

    assert found[0] == HEAD
    assert isinstance(found[1], Unavailable)
    assert stores.forgotten == 0


@pytest.mark.anyio
async def test_a_silent_archive_keeps_no_log_waiting_that_lost_nothing() -> None:
    stores = Stores()
    stores.archive_is_silent = True
    began = time.monotonic()

    heads = await asyncio.gather(
        *(stores.recovery.recover(HEAD, rolled_back=False) for _log in range(21))
    )

    assert heads == [HEAD] * 21
    assert stores.asked == 1
    assert time.monotonic() - began < 2.0


@pytest.mark.anyio
async def test_an_archive_that_answers_again_is_asked_again() -> None:
    stores = Stores()
    stores.vault_is_down = True
    await stores.recovery.recover(HEAD, rolled_back=False)
    stores.vault_is_down = False
    await asyncio.sleep(0.25)

    await stores.recovery.recover(HEAD, rolled_back=False)

    assert stores.asked == 2
