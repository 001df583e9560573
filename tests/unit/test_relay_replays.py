"""Sending twice records once; a memory that is full, or brokers that are away, make a client wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from audit_sdk import InvalidEvent, NotAccepted, Problem
from audit_sdk.identity import now_us, uuid7

from pipeline.api.replays import Arrival, Replays
from tests.relay_support import a_batch, an_event
from tests.unit.relay_client import Relay, a_relay, wrong


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with a_relay(tmp_path) as made:
        yield made


def test_the_same_event_again_is_a_duplicate_and_published_once(relay: Relay) -> None:
    batch = a_batch(an_event(), an_event())
    assert relay.post(batch).status_code == 202

    again = relay.post(a_batch(*batch["events"], an_event()))

    assert again.status_code == 202
    assert [one["result"] for one in again.json()["events"]] == [
        "duplicate",
        "duplicate",
        "accepted",
    ]
    assert relay.sent == 3


def test_an_id_of_somebody_else_or_of_other_content_is_a_conflict(relay: Relay) -> None:
    event = an_event()
    assert relay.post(a_batch(event)).status_code == 202

    for body, token in (
        (a_batch(an_event(), {**event, "outcome": "failure"}), ""),
        (a_batch(an_event(), event), relay.token("u-2")),
        (a_batch(an_event(), event), relay.token("u-1", "globex")),
    ):
        answer = relay.post(body, token)
        assert answer.status_code == 409
        assert wrong(answer) == {("events.1.event_id", "conflict")}
    assert relay.sent == 1


def test_the_same_batch_many_times_at_once_is_published_once(relay: Relay) -> None:
    batch, token = a_batch(*(an_event() for _ in range(5))), relay.token()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: relay.post(batch, token), range(16)))

    assert {one.status_code for one in answers} == {202}
    results = [event["result"] for one in answers for event in one.json()["events"]]
    assert results.count("accepted") == 5
    assert relay.sent == 5


class Clock:
    now = 1_790_000_000.0


class Sent:
    """A receipt."""

    def __init__(self) -> None:
        self.settled, self.failed = True, False


def arrival(at_s: float, sent: list[str]) -> Arrival:
    event_id = uuid7(int(at_s * 1e6))

    def send() -> Any:
        sent.append(event_id)
        return Sent()

    return Arrival(event_id, b"d", send)


def test_ids_are_remembered_as_long_as_they_could_come_again_and_a_full_memory_forgets_none() -> (
    None
):
    clock, sent = Clock(), []
    replays = Replays(window_s=60, max_ids=3, retry_after_s=1, now_s=lambda: clock.now)
    early, late = arrival(clock.now - 50, sent), arrival(clock.now + 50, sent)
    replays.take([early, late])
    with pytest.raises(Exception, match="too many event ids"):
        replays.take([arrival(clock.now, sent), arrival(clock.now, sent)])
    assert len(sent) == 2

    clock.now += 11  # the early one's window is over
    assert not replays.is_current(early.event_id)
    assert len(replays.take([arrival(clock.now, sent), arrival(clock.now, sent)])) == 2
    (again,) = replays.take([late])
    assert again.duplicate
    assert len(sent) == 4


def test_an_event_that_will_not_arrive_may_be_sent_again() -> None:
    clock, sent = Clock(), []
    replays = Replays(window_s=60, max_ids=3, retry_after_s=1, now_s=lambda: clock.now)
    one = arrival(clock.now, sent)
    taken = replays.take([one])
    taken[0].receipt.failed = True
    replays.settle(taken)

    (again,) = replays.take([one])

    assert not again.duplicate
    assert sent == [one.event_id] * 2


def test_without_the_brokers_it_is_503_and_the_same_ids_then_wait_for_the_same_events(
    tmp_path: Path,
) -> None:
    with a_relay(tmp_path, ack_timeout_s=0.3) as relay:
        relay.audit.producer.away = True
        batch = a_batch(an_event(), an_event())

        for _ in range(2):
            began = time.monotonic()
            answer = relay.post(batch)
            assert answer.status_code == 503
            assert time.monotonic() - began < 2
            assert answer.json()["type"].endswith("broker-away")
            assert answer.headers["retry-after"] == "2"
        relay.audit.producer.away = False
        answer = relay.post(batch)

        assert answer.status_code == 202
        assert [one["result"] for one in answer.json()["events"]] == ["duplicate"] * 2
        assert relay.sent == 2


def test_no_more_batches_wait_than_the_setting_says(tmp_path: Path) -> None:
    with a_relay(tmp_path, ack_timeout_s=1.5, requests_max=2) as relay, relay.http:
        relay.audit.producer.away = True
        tokens = [relay.token(f"u-{number}") for number in range(6)]
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda token: relay.post(token=token), tokens))

        kinds = [one.json()["type"].rpartition(":")[2] for one in answers]
        assert sorted(kinds) == ["broker-away"] * 2 + ["busy"] * 4
        assert all(one.headers["retry-after"] == "2" for one in answers)


def test_an_id_of_now_is_current(relay: Relay) -> None:
    assert relay.replays.is_current(uuid7(now_us()))


def test_what_the_brokers_have_is_remembered_without_its_content(relay: Relay) -> None:
    batch = a_batch(an_event(), an_event())
    assert relay.post(batch).status_code == 202

    kept = [relay.replays._known[one["event_id"]].receipt for one in batch["events"]]
    assert kept == [None, None]


def refuses(relay: Relay, refused_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK refuses an event that passed its check."""
    send = relay.audit.send

    def strict(family: str, fields: Any) -> Any:
        if fields["event_id"] == refused_id:
            raise InvalidEvent(family, [Problem("metadata.note", "event_bytes", "is too long")])
        return send(family, fields)

    monkeypatch.setattr(relay.audit, "send", strict)


def test_an_event_that_fails_after_others_were_sent_is_told_as_such_and_refused_alone_afterwards(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, bad, last = an_event(), an_event(), an_event()
    refuses(relay, bad["event_id"], monkeypatch)

    partly = relay.post(a_batch(first, bad, last))
    again = relay.post(a_batch(first, bad, last))
    without = relay.post(a_batch(first, last))

    assert partly.status_code == 500
    assert partly.json()["type"].endswith("partly-recorded")
    assert "send the same events with the same ids again" in partly.json()["detail"]
    assert wrong(partly) == {("events.1.metadata.note", "event_bytes")}
    assert again.status_code == 422  # of this request nothing was recorded
    assert wrong(again) == wrong(partly)
    assert [one["result"] for one in without.json()["events"]] == ["duplicate", "accepted"]
    assert relay.sent == 2


def test_an_event_that_the_sdk_refuses_before_any_was_sent_refuses_its_batch(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = an_event()
    refuses(relay, bad["event_id"], monkeypatch)

    answer = relay.post(a_batch(bad, an_event()))

    assert answer.status_code == 422
    assert wrong(answer) == {("events.0.metadata.note", "event_bytes")}
    assert relay.sent == 0


@pytest.mark.parametrize("error", [NotAccepted("full"), RuntimeError("secret")])
def test_whatever_else_ends_a_batch_in_the_middle_says_that_some_may_be_recorded(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    batch, send, sent = a_batch(an_event(), an_event()), relay.audit.send, []

    def once(family: str, fields: Any) -> Any:
        if sent:
            raise error
        sent.append(family)
        return send(family, fields)

    monkeypatch.setattr(relay.audit, "send", once)
    answer = relay.post(batch)
    monkeypatch.setattr(relay.audit, "send", send)
    again = relay.post(batch)

    assert answer.status_code in (500, 503)
    assert "some may be recorded" in answer.json()["detail"]
    assert "secret" not in answer.text
    assert [one["result"] for one in again.json()["events"]] == ["duplicate", "accepted"]
    assert relay.sent == 2
