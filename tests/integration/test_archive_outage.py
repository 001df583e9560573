"""The archive while the gateway cannot be reached, answers half, or is not set up as needed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pipeline.domain.errors import ConfigurationError, Unavailable
from sinks.buckets import check_buckets, ensure_buckets
from sinks.s3 import connect
from tests.archive_store import over_line
from tests.archive_support import (
    FlakyS3,
    Gateway,
    LedgerLog,
    new_log,
    open_gateway,
    s3_settings,
)
from tests.proxy import Fault

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_gateway() as gateway:
        yield gateway


async def test_an_outage_loses_nothing_and_holds_no_more(gateway: Gateway) -> None:
    ledger = LedgerLog(new_log(), 30)
    async with over_line(gateway) as (line, far):
        destination = far.destination(ledger, max_events=10, max_age_s=60.0)
        await destination.write([ledger.range(0, 5)])
        line.set(Fault.DOWN)

        for _ in range(3):
            with pytest.raises(Unavailable):
                await destination.write([ledger.range(5)])
            assert destination.due_in_s() == 0
        held = destination.held_bytes
        line.set(Fault.NONE)
        durable = await destination.write([ledger.range(5)])

    assert held <= sum(len(event.canonical) + 400 for event in ledger.events[:10])
    assert durable == {1: 30}
    assert await gateway.cuts(ledger.name) == [(0, 10), (10, 20), (20, 30)]


@pytest.mark.parametrize("answers", [1, 2])
async def test_a_put_whose_answer_is_lost_is_stored_once(gateway: Gateway, answers: int) -> None:
    ledger = LedgerLog(new_log(), 10)
    async with over_line(gateway) as (line, far):
        destination = far.destination(ledger)
        line.answers_to_lose = answers

        for _ in range(answers):
            with pytest.raises(Unavailable):
                await destination.write([ledger.range(0)])
        durable = await destination.write([ledger.range(0)])

    assert durable == {1: 10}
    assert await gateway.cuts(ledger.name) == [(0, 10)]


async def test_a_gateway_that_says_nothing_is_unavailable(gateway: Gateway) -> None:
    ledger = LedgerLog(new_log(), 10)
    async with over_line(gateway) as (line, far):
        destination = far.destination(ledger)
        line.set(Fault.SILENT)

        with pytest.raises(Unavailable, match="ReadTimeout"):
            await destination.write([ledger.range(0)])
        line.set(Fault.NONE)

        assert await destination.write([]) == {1: 10}


async def test_one_line_for_both_the_check_and_the_writes(gateway: Gateway) -> None:
    async with over_line(gateway) as (line, far):
        await far.destination(LedgerLog(new_log())).open()
        line.set(Fault.DOWN)

        with pytest.raises(Unavailable):
            await far.destination(LedgerLog(new_log())).open()


async def test_buckets_are_made_once(gateway: Gateway) -> None:
    await ensure_buckets(gateway.s3, archive=gateway.archive, vault=gateway.vault)

    await check_buckets(gateway.s3, archive=gateway.archive, vault=gateway.vault)


async def test_buckets_that_are_not_as_needed_are_refused(gateway: Gateway) -> None:
    archive, vault, s3 = gateway.archive, gateway.vault, gateway.s3

    with pytest.raises(ConfigurationError, match=r"does not exist.*audit-trail"):
        await check_buckets(s3, archive=f"{archive}-none", vault=vault)
    with pytest.raises(ConfigurationError, match="keeps no versions"):
        await check_buckets(s3, archive=vault, vault=vault)
    with pytest.raises(ConfigurationError, match="erased personal data"):
        await check_buckets(s3, archive=archive, vault=archive)
    with pytest.raises(ConfigurationError, match="one bucket"):
        await ensure_buckets(s3, archive=archive, vault=archive)


async def test_wrong_credentials_end_a_command_and_delay_a_worker(gateway: Gateway) -> None:
    ledger = LedgerLog(new_log(), 3)
    wrong = s3_settings() | {"secret_access_key": "not this one"}
    commands = connect(**wrong)
    workers = FlakyS3(commands.client, waits_for_permission=True)
    destination = Gateway(workers, gateway.archive, gateway.vault).destination(ledger)

    with pytest.raises(ConfigurationError, match="refuses HeadBucket: 403"):
        await check_buckets(commands, archive=gateway.archive, vault=gateway.vault)
    with pytest.raises(Unavailable, match="refuses HeadBucket: 403"):
        await destination.open()
    with pytest.raises(Unavailable, match="SignatureDoesNotMatch"):
        await destination.write([ledger.range(0)])
