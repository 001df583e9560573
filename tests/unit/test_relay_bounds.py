"""The relay's bounds: origins, proxies, rates, and the allow-list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.api.allowed import load_allowed
from pipeline.api.rates import Rates
from pipeline.domain.errors import ConfigurationError
from tests.relay_support import a_batch, an_event
from tests.unit.relay_client import PATH, ROOT, Relay, a_relay

APP = "https://app.acme.example"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with a_relay(tmp_path, origins=f"{APP}, http://127.0.0.1:3000") as made:
        yield made


# --- origins ---


def preflight(relay: Relay, origin: str, **headers: str) -> Any:
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
        **headers,
    }
    return relay.http.options(PATH, headers=asked)


def test_pages_of_listed_origins_may_send(relay: Relay) -> None:
    asked = preflight(relay, APP)
    answer = relay.post(origin=APP)

    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == APP
    assert answer.status_code == 202
    assert answer.headers["access-control-allow-origin"] == APP
    assert "access-control-allow-credentials" not in {**asked.headers, **answer.headers}
    refused = relay.post(b"{", origin=APP)
    assert refused.headers["access-control-allow-origin"] == APP  # a page can read why


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        APP + ".evil.example",
        "http://app.acme.example",
        APP + ":8443",
        APP.upper(),
        "null",
        "",
    ],
)
def test_pages_of_other_origins_are_refused(relay: Relay, origin: str) -> None:
    for answer in (preflight(relay, origin), relay.post(origin=origin)):
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
        assert "access-control-allow-origin" not in answer.headers
    assert relay.sent == 0


def test_a_preflight_for_more_than_is_needed_is_refused(relay: Relay) -> None:
    for asked in (
        {"access-control-request-method": "DELETE"},
        {"access-control-request-headers": "x-audit-tenant"},
    ):
        assert preflight(relay, APP, **asked).status_code == 403


# --- who is at the other end ---


def recorded_source(relay: Relay, **headers: str) -> tuple[str, str | None]:
    assert relay.post(**headers).status_code == 202
    source = relay.audit.events()[-1]["source"]
    return source["ip"], source["user_agent"]


SPOOFED = {
    "x_forwarded_for": "198.51.100.66",
    "forwarded": "for=198.51.100.66",
    "x_real_ip": "198.51.100.66",
    "x_client_ip": "198.51.100.66",
    "x_actor": "u-root",
    "x_tenant": "globex",
    "x_forwarded_proto": "https",
}


def test_nobody_says_in_headers_who_they_are(relay: Relay) -> None:
    assert recorded_source(relay, **SPOOFED)[0] == "203.0.113.7"
    event = relay.audit.events()[-1]
    assert (event["tenant"], event["actor"]["id"]) == ("acme", "u-1")
    assert b"198.51.100.66" not in b"".join(value for _, _, value in relay.audit.producer.records)


def test_a_trusted_proxy_says_for_whom(tmp_path: Path) -> None:
    with a_relay(tmp_path, trusted_proxies="10.0.0.0/8", peer="10.1.2.3") as relay:
        assert recorded_source(relay, x_forwarded_for="198.51.100.66")[0] == "198.51.100.66"
        # What a client wrote itself stands further left.
        chain = "192.0.2.9, 198.51.100.66, 10.9.9.9"
        assert recorded_source(relay, x_forwarded_for=chain)[0] == "198.51.100.66"
        assert recorded_source(relay, x_forwarded_for="unknown")[0] == "10.1.2.3"


# --- rates ---


def test_an_actor_and_a_tenant_have_their_rates_and_refused_events_count(tmp_path: Path) -> None:
    with a_relay(tmp_path, actor_events_per_minute=100, tenant_events_per_minute=150) as relay:
        bad = a_batch(*(an_event(action="no.such") for _ in range(60)))
        assert relay.post(bad).status_code == 422
        assert relay.post(a_batch(*(an_event() for _ in range(40)))).status_code == 202

        refused = relay.post()
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert "this actor may send 100 events" in refused.json()["detail"]
        other = relay.token("u-2")
        assert relay.post(a_batch(*(an_event() for _ in range(50))), other).status_code == 202
        refused = relay.post(token=relay.token("u-3"))
        assert "this tenant may send 150 events" in refused.json()["detail"]
        assert relay.post(token=relay.token("u-3", "globex")).status_code == 202
        assert relay.sent == 91


def test_malformed_bodies_count_too(tmp_path: Path) -> None:
    with a_relay(tmp_path, actor_events_per_minute=100) as relay:
        statuses = [relay.post(b"{").status_code for _ in range(101)]

        assert statuses == [400] * 100 + [429]


def test_actors_whose_names_look_alike_have_rates_of_their_own(tmp_path: Path) -> None:
    with a_relay(tmp_path, actor_events_per_minute=100) as relay:
        batch = [a_batch(*(an_event() for _ in range(100))) for _ in range(2)]
        assert relay.post(batch[0], relay.token("b/c", "a")).status_code == 202
        assert relay.post(batch[1], relay.token("c", "a/b")).status_code == 202


def test_a_storage_that_does_not_exist_is_a_configuration_error() -> None:
    for uri in ("nowhere://x", "redis://127.0.0.1:1"):
        with pytest.raises(ConfigurationError, match="AUDIT_RELAY_RATE_STORAGE"):
            Rates(uri, actor_per_minute=100, tenant_per_minute=100, retry_after_s=1)


# --- the allow-list ---


def test_the_sample_is_one_that_starts() -> None:
    allowed = load_allowed(ROOT / "samples/relay/actions.json")

    assert allowed["invoice.download"].needs_resources
    assert not allowed["session.end"].needs_resources


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "allows no action"),
        ([], "no JSON object|not a JSON object"),
        ({"Invoice": {"family": "data-access", "operation": "read"}}, "action: must be"),
        ({"a.b": {"family": "data-access"}}, "operation: is missing"),
        ({"a.b": {"family": "data-access", "operation": "steal"}}, "operation: must be one of"),
        ({"a.b": {"family": "system", "operation": "gap"}}, "family must be one of"),
        ({"a.b": {"family": "nothing"}}, "family must be one of"),
        ({"a.b": {"family": "data-access", "operation": "read", "tenant": "x"}}, "tenant cannot"),
        ({"a.b": {"family": "data-access", "operation": "read", "actor": {}}}, "actor cannot"),
        ({"a.b": {"family": "data-access", "operation": "read", "odd": 1}}, "odd: is no field"),
        ({"a.b": {"family": "profile-update", "self_service": True}}, "changes"),
    ],
)
def test_an_allow_list_that_breaks_the_contract_stops_the_start(
    tmp_path: Path, content: Any, said: str
) -> None:
    file = tmp_path / "actions.json"
    file.write_text(json.dumps(content))

    with pytest.raises(ConfigurationError, match=said):
        load_allowed(file)
