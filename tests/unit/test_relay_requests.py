"""The relay's requests: what is recorded, what is refused, and that a refusal leaves nothing behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_sdk.identity import now_us, uuid7

from tests.relay_support import a_batch, an_event
from tests.unit.relay_client import PATH, Relay, a_relay, wrong

MINUTES_US = 60_000_000
ROOT = Path(__file__).parents[2]


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with a_relay(tmp_path) as made:
        yield made


def assert_problem(answer: Any, status: int, name: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:audit-trail:problem:{name}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


def test_a_batch_is_recorded_with_what_the_relay_knows(relay: Relay) -> None:
    sent = an_event(
        outcome="failure",
        reason_code="cancelled",
        labels={"button": "download"},
        client_time="2026-09-01T12:00:00+02:00",
        resources=[{"type": "invoice", "id": "i-1", "name": "May", "path": "/i/1"}],
    )
    before = now_us()

    answer = relay.post(a_batch(sent), user_agent="Trial/1.0", x_request_id="rq-1")

    assert answer.status_code == 202, answer.text
    assert answer.json() == {"events": [{"event_id": sent["event_id"], "result": "accepted"}]}
    (event,) = relay.audit.events()
    assert before <= event["occurred_at"].timestamp() * 1e6 <= now_us()
    assert (event["tenant"], event["outcome"]) == ("acme", "failure")
    assert event["actor"]["id"] == "u-1"
    assert event["actor"]["tenant"] == "acme"
    assert event["operation"] == "download"
    assert event["resources"] == [
        {"tenant": "acme", "type": "invoice", "id": "i-1", "name": "May", "path": "/i/1"}
    ]
    assert event["source"]["ip"] == "203.0.113.7"
    assert event["source"]["user_agent"] == "Trial/1.0"
    assert event["request"]["id"] == "rq-1"
    assert event["labels"] == {"button": "download"}
    assert event["metadata"] == {"client_time": "2026-09-01T10:00:00.000Z"}
    assert event["producer"]["sequence"] == 0


def test_a_logout_needs_no_thing_and_its_failure_a_reason(relay: Relay) -> None:
    logout = an_event(action="session.end", resources=...)
    assert relay.post(a_batch(logout)).status_code == 202

    failed = {**logout, "event_id": uuid7(now_us()), "outcome": "failure"}
    refused = relay.post(a_batch(failed))
    assert wrong(refused) == {("events.0.reason_code", "required_if")}
    assert relay.post(a_batch({**failed, "reason_code": "timeout"})).status_code == 202
    assert [event["failure_code"] for event in relay.audit.events()] == [None, "timeout"]


def test_a_token_in_the_body_is_as_good_and_needs_no_preflight(relay: Relay) -> None:
    batch = {**a_batch(), "token": relay.token("u-7")}

    answer = relay.post(batch, None, content_type="text/plain;charset=UTF-8")

    assert answer.status_code == 202, answer.text
    assert relay.audit.events()[0]["actor"]["id"] == "u-7"


def test_two_tokens_or_none_are_refused(relay: Relay) -> None:
    twice = relay.post({**a_batch(), "token": relay.token()})
    assert_problem(twice, 400, "token-twice")
    for answer in (
        relay.post(token=None),
        relay.post({**a_batch(), "token": 7}, None),
        relay.post(token=None, authorization="Basic dTpw"),
        relay.post(token=None, authorization="Bearer "),
    ):
        assert_problem(answer, 401, "token-missing")
        assert answer.headers["www-authenticate"] == 'Bearer realm="audit-relay"'
    assert relay.sent == 0


@pytest.mark.parametrize(
    ("change", "path", "rule"),
    [
        ({"tenant": "globex"}, "tenant", "unknown_field"),
        ({"actor": {"id": "u-2"}}, "actor", "unknown_field"),
        ({"occurred_at": 1}, "occurred_at", "unknown_field"),
        ({"source": {"ip": "192.0.2.1"}}, "source", "unknown_field"),
        ({"operation": "export"}, "operation", "unknown_field"),
        (
            {"resources": [{"type": "invoice", "tenant": "globex"}]},
            "resources.0.tenant",
            "unknown_field",
        ),
        ({"resources": [{"id": "i-1"}]}, "resources.0.type", "required"),
        ({"resources": ...}, "resources", "at_least_one"),
        ({"resources": [{"type": "x"}] * 65}, "resources", "items"),
        ({"resources": [{"type": "x" * 501}]}, "resources.0.type", "text_chars"),
        ({"resources": [{"type": "x\x00"}]}, "resources.*.type", "control_character"),
        ({"resources": [{"type": "\ud800"}]}, "resources.0.type", "unicode"),
        ({"action": "record.erase"}, "action", "allowed"),
        ({"action": 7}, "action", "string_type"),
        ({"outcome": "maybe"}, "outcome", "symbol"),
        ({"labels": {"k" * 65: "v"}}, None, "text_chars"),
        ({"labels": {"k": "é" * 200}}, "labels", "label_value_bytes"),
        ({"labels": {"k": 1}}, "labels.k", "string_type"),
        ({"client_time": "yesterday"}, "client_time", "time"),
        ({"client_time": "2026-09-01T12:00:00"}, "client_time", "time"),
        ({"event_id": "x"}, "event_id", "pattern"),
        ({"event_id": "d9b2d63d-a233-4123-847a-76f8ab4a7a0c"}, "event_id", "pattern"),
        ({"event_id": uuid7(now_us()).upper()}, "event_id", "pattern"),
        ({"event_id": uuid7(now_us() - 60 * MINUTES_US)}, "event_id", "window"),
        ({"event_id": uuid7(now_us() + 60 * MINUTES_US)}, "event_id", "window"),
        ({"event_id": ...}, "event_id", "required"),
    ],
)
def test_one_bad_event_refuses_its_batch_and_says_where(
    relay: Relay, change: dict[str, Any], path: str | None, rule: str
) -> None:
    answer = relay.post(a_batch(an_event(), an_event(**change), an_event()))

    assert_problem(answer, 422, "invalid-events")
    found = wrong(answer)
    assert rule in {one for _, one in found}
    if path is not None:
        assert (f"events.1.{path}", rule) in found
    assert relay.sent == 0
    assert len(relay.replays) == 0


@pytest.mark.parametrize("events", [[], [an_event() for _ in range(101)], {}, None, [7]])
def test_a_batch_has_1_to_100_events(relay: Relay, events: Any) -> None:
    assert_problem(relay.post({"events": events}), 422, "invalid-events")
    assert relay.sent == 0


def test_100_events_are_one_batch(relay: Relay) -> None:
    batch = a_batch(*(an_event() for _ in range(100)))

    assert relay.post(batch).status_code == 202
    assert relay.sent == 100


def test_an_id_twice_in_a_batch_is_refused(relay: Relay) -> None:
    event = an_event()

    assert wrong(relay.post(a_batch(event, event))) == {("events.1.event_id", "unique")}
    assert relay.sent == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe{}",
        '{"events": []}'.encode("utf-16"),
        b'{"events": "\xc3"}',
        b'{"events": [], "events": []}',
        b'{"events": [{"action": "a.b", "action": "invoice.download"}]}',
        b'{"events": NaN}',
        b"[" * 100_000,
        b'{"events":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"events": ' + b"9" * 5_000 + b"}",
    ],
    ids=range(13),
)
def test_what_is_no_strict_json_is_refused(relay: Relay, body: bytes) -> None:
    assert_problem(relay.post(body), 400, "malformed-body")
    assert relay.sent == 0


def test_deep_json_that_python_reads_is_refused_too(relay: Relay) -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]

    assert_problem(relay.post({"events": [an_event(labels={"k": deep})]}), 422, "invalid-events")
    assert relay.sent == 0


@pytest.mark.parametrize("stated", ["honest", "small", "absent", "nonsense"])
def test_a_body_beyond_the_bound_is_refused_whatever_its_length_says(
    tmp_path: Path, stated: str
) -> None:
    with a_relay(tmp_path, body_max_bytes=2_000) as relay:
        body = json.dumps({**a_batch(), "pad": "x" * 4_000}).encode()
        pieces = (body[at : at + 500] for at in range(0, len(body), 500))
        headers = {"content-type": "application/json", "authorization": f"Bearer {relay.token()}"}
        length = {"honest": str(len(body)), "small": "10", "nonsense": "9" * 30}.get(stated)
        if length is not None:
            headers["content-length"] = length
        answer = relay.http.post(PATH, content=pieces, headers=headers)

        assert_problem(answer, 413, "body-too-large")
        assert relay.sent == 0
        assert relay.post().status_code == 202


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "application/xml"},
        {"content_type": ""},
        {"content_type": "application/json; charset=utf-16"},
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_encoding": "gzip"},
    ],
)
def test_other_types_are_refused(relay: Relay, headers: dict[str, str]) -> None:
    assert_problem(relay.post(**headers), 415, "content-type")
    assert relay.sent == 0


def test_other_paths_and_methods_are_problems_and_every_answer_has_safe_headers(
    relay: Relay,
) -> None:
    missing = relay.http.get("/v1/nothing")
    assert_problem(missing, 404, "not-found")
    assert_problem(relay.http.post(PATH + "/"), 404, "not-found")
    wrong_method = relay.http.get(PATH)
    assert_problem(wrong_method, 405, "method-not-allowed")
    assert wrong_method.headers["allow"] == "POST"

    for answer in (missing, wrong_method, relay.post(), relay.http.get("/healthz")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_bug_is_a_problem_that_tells_nothing(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: Any) -> None:
        raise RuntimeError("secret i-58d1")

    monkeypatch.setattr(relay.audit, "check", broken)

    answer = relay.post()

    assert_problem(answer, 500, "internal")
    assert "i-58d1" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_batch_of_the_document_is_taken_as_it_is_typed(relay: Relay, tmp_path: Path) -> None:
    page = (ROOT / "docs/relay.md").read_text(encoding="utf-8")
    batch, typed = (
        textwrap.dedent(
            re.findall(rf"^ *```{kind}\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)[at]
        )
        for kind, at in (("json", 1), ("sh", 0))
    )
    (tmp_path / "batch.json").write_text(batch, encoding="utf-8")
    program = re.sub(r"^TOKEN=.*\n", "", typed).replace(".venv/bin/python", sys.executable)
    program = re.sub(r"\bcurl .*", "cat", program)

    sent = subprocess.run(
        ["sh", "-e", "-c", program], cwd=tmp_path, capture_output=True, check=True
    )

    assert relay.post(sent.stdout).status_code == 202
    (event,) = relay.audit.events()
    assert event["resources"][0]["name"] == "Invoice of May"
