"""What the relay shows of itself: its pages, its log, and a guide that is true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli import commands_relay
from tests.relay_support import TOKEN_KEY, a_batch, an_event
from tests.unit.relay_client import ROOT, Relay, a_relay

MINUTES_US = 60_000_000


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with a_relay(tmp_path) as made:
        yield made


def test_pages_of_whoever_runs_it(relay: Relay) -> None:
    relay.post()
    relay.post(b"{")

    assert relay.http.get("/healthz").json() == {"status": "alive"}
    assert relay.http.get("/readyz").json() == {"ready": True, "waiting_for": []}
    page = relay.http.get("/metrics").text
    assert 'audit_relay_events_total{result="accepted"} 1.0' in page
    assert 'audit_relay_refused_total{reason="malformed-body"} 1.0' in page
    assert "audit_relay_request_seconds_count 2.0" in page
    assert "acme" not in page


def test_no_log_line_has_a_token_or_content(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="pipeline")
    token = relay.token("u-secret")

    relay.post(a_batch(an_event(labels={"k": "content-1"})), token)
    relay.post(a_batch(an_event(action="content-2")), token)
    relay.post(token=token + "x")

    logged = " ".join(
        f"{one.getMessage()} {vars(one)}"
        for one in caplog.records
        if one.name.startswith("pipeline")
    )
    assert "request_refused" in logged
    for secret in (token[:20], "u-secret", "content-1", "content-2"):
        assert secret not in logged


def test_the_tokens_of_the_guide_are_taken(relay: Relay) -> None:
    guide = (ROOT / "docs/relay.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    found: dict[str, Any] = {"key": TOKEN_KEY}
    exec(program, found)

    assert relay.post(token=found["token"]).status_code == 202
    assert relay.audit.events()[0]["actor"]["id"] == "u-000042"


def test_without_its_packages_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands_relay, "find_spec", lambda name: None if name == "jwt" else name)

    with pytest.raises(ConfigurationError, match=r"needs pyjwt: install .* extra `api`"):
        commands_relay.serve()
