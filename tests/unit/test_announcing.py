"""What a command tells the trail of itself, and that it goes on only once the ledger has it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from pipeline.entrypoints.cli import announcing
from pipeline.entrypoints.cli.announcing import NotHeld, command_event, operator_of, tell_trail
from pipeline.entrypoints.cli.version import product_version
from pipeline.importers.encode import EventEncoder
from pipeline.settings import Settings
from pipeline.testing import read_as_worker

OPERATED = Settings(operator="ann@desk")


class Ledger:
    """``Connection`` to a ledger that has so many of the events at each look, the last for good."""

    def __init__(self, *counts: int) -> None:
        self._counts = list(counts)
        self.asked: list[Sequence[UUID]] = []
        self.closed = False

    def __call__(self, _url: str, **_options: Any) -> Ledger:
        return self

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Ledger]:
        yield self

    async def execute(self, _statement: str, parameters: Sequence[Any]) -> Ledger:
        self.asked.append(parameters[0])
        return self

    async def fetchone(self) -> tuple[int]:
        return (self._counts.pop(0) if len(self._counts) > 1 else self._counts[0],)

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    ids: list[str] = []

    def publish(_settings: Settings, events: Sequence[Any]) -> None:
        ids.extend(event["event_id"] for event in events)

    monkeypatch.setattr(announcing, "publish_system", publish)
    monkeypatch.setattr(announcing, "_LOOK_EVERY_S", 0.001)
    return ids


def two_events() -> list[dict[str, Any]]:
    return [command_event(OPERATED, tenant, "export", "trail.export") for tenant in ("a", "b")]


@pytest.mark.anyio
async def test_telling_returns_once_the_ledger_has_every_event(
    monkeypatch: pytest.MonkeyPatch, published: list[str]
) -> None:
    ledger, events = Ledger(0, 1, 2), two_events()
    monkeypatch.setattr(announcing, "Connection", ledger)

    await tell_trail(OPERATED, events, timeout_s=30)

    assert published == [event["event_id"] for event in events]
    assert ledger.asked == [[UUID(one) for one in published]] * 3
    assert ledger.closed


@pytest.mark.anyio
async def test_an_event_that_nobody_stores_stops_what_was_to_follow(
    monkeypatch: pytest.MonkeyPatch, published: list[str]
) -> None:
    ledger = Ledger(1)
    monkeypatch.setattr(announcing, "Connection", ledger)

    with pytest.raises(NotHeld, match=r"within 0 s, so nothing more was done"):
        await tell_trail(OPERATED, two_events(), timeout_s=0.02)

    assert len(published) == 2
    assert len(ledger.asked) > 1
    assert ledger.closed


def test_the_event_of_a_command_says_who_ran_which_release_and_on_no_host() -> None:
    event = command_event(OPERATED, "acme", "repair", "trail.repair", severity="medium")

    read = read_as_worker("system", EventEncoder({"system": 3}).encode("system", event).value)

    assert UUID(read["event_id"]).version == 7
    assert (read["tenant"], read["operation"], read["action"], read["outcome"]) == (
        "acme",
        "repair",
        "trail.repair",
        "success",
    )
    assert read["severity"] == "medium"
    assert read["producer.version"] == product_version()
    assert "producer.instance" not in read  # which may be the operator's own device
    assert (read["actor.tenant"], read["actor.id_type"], read["actor.id"]) == (
        "acme",
        "operator",
        "ann@desk",
    )


def test_who_is_not_named_is_account_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "root")

    assert operator_of(Settings(operator="")) == f"root@{socket.gethostname()}"
