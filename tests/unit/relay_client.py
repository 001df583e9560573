"""The relay's application, called in this process, on an SDK client whose broker is a list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from audit_sdk import DeliveryClass
from prometheus_client import CollectorRegistry
from recorded import Recorded
from starlette.testclient import TestClient

from pipeline.api.allowed import load_allowed
from pipeline.api.app import create_app
from pipeline.api.metrics import RelayMetrics
from pipeline.api.rates import Rates
from pipeline.api.relay import RelayParts
from pipeline.api.replays import Replays
from pipeline.api.settings import RelaySettings
from pipeline.domain.logs import SERVICE_FAMILIES
from pipeline.entrypoints.relay import make_relay_tokens, make_tokens
from tests.relay_support import TOKEN_KEY, a_batch

ROOT = Path(__file__).parents[2]
PATH = "/v1/relay/events"


class Relay:
    """The client of the application, its broker and its metrics."""

    def __init__(self, settings: RelaySettings, *, peer: str = "203.0.113.7") -> None:
        self.settings = settings
        self.tokens = make_tokens(settings)
        self.audit = Recorded(
            tenant=None,
            delivery=dict.fromkeys(SERVICE_FAMILIES, DeliveryClass.FAIL_CLOSED),
            close_timeout_s=0.5,
        )
        self.metrics = RelayMetrics(CollectorRegistry())
        self.replays = Replays(
            window_s=settings.replay_window_s, max_ids=settings.replay_max_ids, retry_after_s=2
        )
        parts = RelayParts(
            self.audit,
            self.tokens,
            Rates(
                settings.rate_storage,
                actor_per_minute=settings.actor_events_per_minute,
                tenant_per_minute=settings.tenant_events_per_minute,
                retry_after_s=settings.retry_after_s,
            ),
            self.replays,
            load_allowed(settings.allow_file),
        )
        self.app = create_app(settings, parts, self.metrics, broker_answers=lambda: True)
        self.http = TestClient(self.app, client=(peer, 50_000), raise_server_exceptions=False)

    def post(self, body: Any = None, token: str | None = "", **headers: str) -> httpx.Response:
        """``token``: "" is a good one, None is none. ``body``: bytes as they are, else JSON."""
        content = (
            body if isinstance(body, bytes) else json.dumps(a_batch() if body is None else body)
        )
        sent = {
            "content-type": "application/json",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        if token is not None:
            sent["authorization"] = f"Bearer {token or self.token()}"
        return self.http.post(PATH, content=content, headers=sent)

    def token(self, actor: str = "u-1", tenant: str = "acme") -> str:
        return make_relay_tokens(self.settings).mint(tenant, actor, 300)

    @property
    def sent(self) -> int:
        return len(self.audit.producer.records)


@contextmanager
def a_relay(folder: Path, *, peer: str = "203.0.113.7", **changes: Any) -> Iterator[Relay]:
    key = folder / "token.key"
    key.touch(mode=0o600)
    key.write_text(TOKEN_KEY.hex())
    settings = RelaySettings(
        **{"allow_file": ROOT / "samples/relay/actions.json", "token_key_file": key, **changes}
    )
    made = Relay(settings, peer=peer)
    try:
        yield made
    finally:
        made.audit.close()


def wrong(answer: httpx.Response) -> set[tuple[str, str]]:
    """(path, rule) of each flaw of a 422 or 409."""
    return {(one["path"], one["rule"]) for one in answer.json()["errors"]}


def assert_refused(relay: Relay, token: str, why: str = "") -> None:
    answer = relay.post(token=token)
    assert answer.status_code == 401, answer.text
    assert answer.json()["type"] == "urn:audit-trail:problem:token-refused"
    assert why in answer.json()["detail"]
    assert answer.headers["www-authenticate"] == 'Bearer realm="audit-relay", error="invalid_token"'
    assert relay.sent == 0
