"""The call: what an event gets by itself, what a request adds, and what is refused before sending."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from audit_sdk import (
    Audit,
    AuditConfigurationError,
    AuditSettings,
    DeliveryClass,
    InvalidEvent,
    NotDelivered,
    audit_context,
    contract,
    set_context,
)
from audit_sdk.asgi import AuditMiddleware
from audit_sdk.context import trace_of
from audit_sdk.identity import uuid7
from recorded import Recorded

ACTOR = {"type": "user", "tenant": "acme", "id_type": "user_id", "id": "u-1"}
RECORD = {"tenant": "acme", "type": "record", "id": "r-1"}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def audit() -> Iterator[Recorded]:
    with Recorded(version="1.2", environment="test", instance="records-0") as made:
        yield made


def test_an_event_gets_what_the_call_leaves_out(audit: Recorded) -> None:
    before = datetime.now(UTC)
    event_id = audit.data_access("record.read", "read", actor=ACTOR, resources=[RECORD])
    (event,) = audit.events()

    assert str(event["event_id"]) == event_id
    assert event["event_id"].version == 7
    assert before <= event["occurred_at"] <= datetime.now(UTC)
    assert (event["tenant"], event["outcome"]) == ("acme", "success")
    producer = event["producer"]
    assert producer.pop("epoch") > 1_700_000_000_000_000
    assert producer == {
        "service": "records",
        "version": "1.2",
        "instance": "records-0",
        "environment": "test",
        "sequence": 0,
    }


def test_there_is_a_call_for_each_family(audit: Recorded) -> None:
    audit.login(actor=ACTOR, outcome="failure", failure_code="invalid_password")
    audit.data_access("record.read", "read", actor=ACTOR, resources=[RECORD])
    audit.profile_update(self_service=True, actor=ACTOR, changes=[{"path": "phone"}])
    audit.admin_action("project.delete", "delete", actor=ACTOR, resources=[RECORD])
    audit.security_change("role.grant", "role", actor=ACTOR, resources=[RECORD])

    assert len(audit.events()) == 5
    assert [topic for topic, _key, _value in audit.producer.records] == [
        one.topic for name, one in contract().families.items() if name != "system"
    ]


@pytest.mark.parametrize("family", ["login", "system"])
def test_a_family_that_is_none_or_the_trails_own_is_refused(audit: Recorded, family: str) -> None:
    with pytest.raises(LookupError, match="authentication, data-access"):
        audit.emit(family, {"action": "session.start", "actor": ACTOR})

    assert audit.producer.records == []


def test_sequences_count_by_topic_and_an_invalid_event_takes_none(audit: Recorded) -> None:
    for _ in range(2):
        audit.login(actor=ACTOR)
        with pytest.raises(InvalidEvent, match="resources"):
            audit.data_access("record.read", "read", actor=ACTOR)
        audit.data_access("record.read", "read", actor=ACTOR, resources=[RECORD])

    assert [event["producer"]["sequence"] for event in audit.events()] == [0, 0, 1, 1]


def test_a_time_may_be_a_datetime_and_an_id_the_callers(audit: Recorded) -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)
    given = "01966f3e-7a10-7c3b-9d2e-5b7f0c1a2d39"
    audit.login(actor=ACTOR, occurred_at=at, event_id=given)
    audit.login(actor=ACTOR, occurred_at=(int(at.timestamp()) * 1_000_000 + 123_456))

    first, second = audit.events()
    assert first["occurred_at"] == second["occurred_at"] == at
    assert str(first["event_id"]) == given


def test_what_is_missing_is_said_before_anything_is_sent(audit: Recorded) -> None:
    with pytest.raises(InvalidEvent) as caught:
        audit.login(actor={"type": "user"}, tenant="")

    found = [(problem.path, problem.rule) for problem in caught.value.problems]
    assert found == [
        ("tenant", "empty"),
        ("actor.tenant", "required"),
        ("actor.id_type", "required"),
    ]
    assert audit.events() == []


def test_a_context_is_seen_by_what_runs_in_it_and_by_nothing_else(audit: Recorded) -> None:
    def work() -> None:
        audit.login()

    with audit_context(actor=ACTOR, source={"ip": "192.0.2.1"}), ThreadPoolExecutor(1) as pool:
        with audit_context(source={"port": 7}, session={"id": "s"}):
            audit.login()
        audit.login(source={"ip": "192.0.2.9"})
        with pytest.raises(InvalidEvent, match=r"actor: is missing"):
            pool.submit(work).result()
    with pytest.raises(InvalidEvent, match=r"actor: is missing"):
        audit.login()
    with pytest.raises(LookupError):
        set_context(actor=ACTOR)

    inner, outer = audit.events()
    assert (inner["source"]["ip"], inner["source"]["port"]) == ("192.0.2.1", 7)
    assert inner["session"]["id"] == "s"
    assert (outer["source"]["ip"], outer["session"]) == ("192.0.2.9", None)


def serve(
    audit: Recorded,
    headers: dict[str, str] | list[tuple[str, str]],
    client: tuple[str, int] | None,
) -> None:
    """A request through the middleware, whose handler is authenticated inside, in another thread."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        await asyncio.to_thread(set_context, actor=ACTOR)
        await asyncio.to_thread(audit.login)

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    lines = headers.items() if isinstance(headers, dict) else headers
    scope = {
        "type": "http",
        "client": client,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in lines],
    }
    middleware = AuditMiddleware(app, trusted_proxies=["10.0.0.0/8", "fd00::/8"])
    asyncio.run(middleware(scope, nothing, nothing))


def test_the_middleware_carries_the_requests_facts(audit: Recorded) -> None:
    headers = {"user-agent": "curl/8", "x-request-id": "rq-1", "traceparent": TRACE}
    serve(audit, headers, ("192.0.2.7", 50_000))

    (event,) = audit.events()
    assert event["actor"]["id"] == "u-1"
    assert event["source"]["ip"] == "192.0.2.7"
    assert (event["source"]["port"], event["source"]["user_agent"]) == (50_000, "curl/8")
    assert event["request"] == {
        "id": "rq-1",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": "00f067aa0ba902b7",
    }


@pytest.mark.parametrize(
    ("client", "forwarded", "expected"),
    [
        ("192.0.2.7", "203.0.113.1", "192.0.2.7"),  # nobody's proxy: what it says counts nothing
        ("10.0.0.1", "203.0.113.1", "203.0.113.1"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.1, 10.0.0.2", "203.0.113.1"),
        ("10.0.0.1", "6.6.6.6, rubbish, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.2", "203.0.113.1", "203.0.113.1"),  # IPv4, on a socket of both kinds
        ("::ffff:192.0.2.7", "203.0.113.1", "192.0.2.7"),
        ("10.0.0.1", "::ffff:203.0.113.1, ::ffff:10.0.0.3", "203.0.113.1"),
        ("fe80::1%eth0", "", "fe80::1"),
        ("fd00::1%eth0", "2001:db8::2%7", "2001:db8::2"),
    ],
)
def test_a_forwarded_address_counts_only_from_a_trusted_proxy(
    audit: Recorded, client: str, forwarded: str, expected: str
) -> None:
    serve(audit, {"x-forwarded-for": forwarded}, (client, 1))

    (event,) = audit.events()
    assert event["source"]["ip"] == expected


def test_forwarded_addresses_of_several_lines_are_one_list(audit: Recorded) -> None:
    lines = [("X-Forwarded-For", "6.6.6.6, 203.0.113.1"), ("x-forwarded-for", "10.0.0.2")]
    serve(audit, lines, ("10.0.0.1", 1))

    (event,) = audit.events()
    assert event["source"]["ip"] == "203.0.113.1"


@pytest.mark.parametrize(
    "headers",
    [
        {"user-agent": "a\x1b[31m"},
        {"user-agent": "x" * 5_000},
        {"x-request-id": "ada@example.com"},
        {"x-request-id": "x" * 5_000},
        {"traceparent": "00-zz-yy-01"},
        {"x-forwarded-for": "<script>"},
    ],
)
def test_what_a_client_sends_spoils_no_event(audit: Recorded, headers: dict[str, str]) -> None:
    serve(audit, headers, ("10.0.0.1", 1))

    (event,) = audit.events()
    assert "@" not in event["request"]["id"]


def test_a_request_without_an_address_has_none(audit: Recorded) -> None:
    serve(audit, {}, None)

    (event,) = audit.events()
    assert event["source"] is None


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (TRACE, True),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-will-be", True),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", False),
        ("", False),
    ],
)
def test_a_traceparent_is_read_as_w3c_has_it(text: str, is_one: bool) -> None:
    assert bool(trace_of(text)) is is_one


def test_ids_are_version_7_in_the_order_of_time() -> None:
    ids = [uuid7(at * 1_000) for at in range(1_790_000_000_000, 1_790_000_000_050)]

    assert ids == sorted(ids)
    assert len(set(ids)) == 50
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-.{12}", one)
        for one in ids
    )


def test_settings_that_do_not_fit_are_named() -> None:
    given = {"service": "x", "bootstrap": "", "registry_url": "http://127.0.0.1:1"}
    for options, said in (
        ({"service": ""}, "AUDIT_SERVICE"),
        ({"registry_url": "ftp://x"}, "registry_url"),
        ({"delivery": {"login": "spool"}}, "no family"),
        ({"delivery": {"authentication": "sometimes"}}, "best_effort"),
        ({"delivery": {"authentication": "spool"}}, "spool_dir"),
        ({"delivery": {"system": "best_effort"}}, "system"),
        ({"spool_dir": ""}, "spool_dir"),
        ({"spool_dir": 7}, "spool_dir"),
        ({"spool_max_bytes": -1}, "spool_max_bytes"),
        ({"buffer_bytes": 0}, "buffer_bytes"),
        ({"fail_closed_timeout_s": -1.0}, "fail_closed_timeout_s"),
        ({"close_timeout_s": float("nan")}, "close_timeout_s"),
        ({"request_timeout_s": 0}, "request_timeout_s"),
        ({"heartbeat_s": -60}, "heartbeat_s"),
        ({"heartbeat_s": "60"}, "heartbeat_s"),
        (
            {"registry_url": "https://x", "registry_ca_file": "/no/such"},
            "registry_ca_file /no/such",
        ),
        ({"registry_url": "https://x", "registry_ca_file": __file__}, "registry_ca_file"),
    ):
        with pytest.raises(AuditConfigurationError, match=said):
            Audit(settings=AuditSettings(**{**given, **options}))


def test_without_a_spool_nothing_is_promised_beyond_the_process(tmp_path: Any) -> None:
    given = AuditSettings(service="x", bootstrap="", registry_url="http://127.0.0.1:1")

    assert given.class_of("authentication") is DeliveryClass.BEST_EFFORT
    assert given.named(spool_dir=tmp_path).class_of("authentication") is DeliveryClass.SPOOL


def test_a_folder_may_be_given_as_text(tmp_path: Any) -> None:
    with Recorded(spool_dir=str(tmp_path)) as audit:
        audit.login(actor=ACTOR)
        assert len(audit.events()) == 1


def test_passwords_are_not_shown() -> None:
    given = AuditSettings(
        service="x", bootstrap="", registry_url="http://x", registry_password="pw-1"
    )

    assert "pw-1" not in repr(given)


def test_a_naive_time_is_local_as_python_has_it(audit: Recorded) -> None:
    naive = datetime(2026, 3, 1, 12, 0, 0)  # noqa: DTZ001
    audit.login(actor=ACTOR, occurred_at=naive)

    (event,) = audit.events()
    assert abs(event["occurred_at"] - naive.astimezone()) < timedelta(seconds=1)


def test_a_call_does_not_wait_for_a_broker(tmp_path: Any) -> None:
    settings = AuditSettings(
        service="x",
        tenant="acme",
        bootstrap="127.0.0.1:9",
        registry_url="http://127.0.0.1:9",
        spool_dir=tmp_path,
        close_timeout_s=0.1,
    )
    with Audit(settings=settings) as audit:
        began = time.monotonic()
        for _ in range(100):
            audit.login(actor=ACTOR)
        assert time.monotonic() - began < 2.0
        assert audit.pending


def test_many_events_are_accepted_first_and_then_waited_for() -> None:
    with Recorded(tenant="acme") as audit:
        audit.producer.away = True
        fields = {"action": "record.read", "operation": "read", "actor": ACTOR}
        receipts = [audit.send("data-access", {**fields, "resources": [RECORD]}) for _ in range(50)]
        with pytest.raises(NotDelivered):
            receipts[0].wait(0.05)
        assert not any(one.settled or one.failed for one in receipts)
        audit.producer.away = False
        for one in receipts:
            one.wait(5.0)

        assert all(one.settled and not one.failed for one in receipts)
        assert [str(event["event_id"]) for event in audit.events()] == [
            one.event_id for one in receipts
        ]


def test_a_receipt_ends_with_its_client() -> None:
    audit = Recorded(tenant="acme", close_timeout_s=0.1)
    audit.producer.away = True
    receipt = audit.send("authentication", {"action": "session.start", "actor": ACTOR})
    audit.close()

    assert receipt.failed
    with pytest.raises(NotDelivered, match="closed"):
        receipt.wait(5.0)


def test_an_event_that_send_would_refuse_is_checked_and_nothing_is_sent(audit: Recorded) -> None:
    fields = {"action": "record.read", "operation": "read", "actor": ACTOR}
    (problem,) = audit.check("data-access", fields)

    assert (problem.path, problem.rule) == ("resources", "at_least_one")
    with audit_context(resources=[RECORD]):
        assert audit.check("data-access", fields) == []
    with pytest.raises(InvalidEvent):
        audit.send("data-access", fields)
    assert audit.events() == []


def test_an_event_that_is_checked_fits_whatever_its_sequence(audit: Recorded) -> None:
    full = {"tenant": "acme", "type": "x" * 500, "id": "x" * 500, "name": "x" * 500}

    def event(chars: int) -> dict[str, Any]:
        resources = [full] * 42 + [{**full, "name": "x" * chars}, {**RECORD, "id": "x" * chars}]
        return {
            "action": "record.read",
            "operation": "read",
            "actor": ACTOR,
            "resources": resources,
        }

    audit.data_access(**event(100))
    (_topic, _key, value), *_ = (audit.flush(5.0), audit.producer.records)[1]
    most = 100 + (contract().limits.event_bytes - len(value) + 5) // 2  # with sequence 0

    audit.data_access(**event(most))
    (problem,) = audit.check("data-access", event(most))
    assert problem.rule == "event_bytes"
    assert audit.check("data-access", event(most - 5)) == []
