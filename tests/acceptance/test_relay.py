"""The relay as a process on a real broker: what is answered 202 is there, and what is refused is not."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from audit_sdk.identity import now_us, uuid7

from tests.acceptance.raw_topics import RawTopics
from tests.acceptance.records import wait_until
from tests.acceptance.relay_process import PATH, RelayProcess, a_relay_process, settle
from tests.proxy import Fault, FaultProxy
from tests.relay_support import AUDIENCE, Provider, a_batch, an_event, b64, hmac_signed

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
]

APP = "https://app.acme.example"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


@pytest.fixture(scope="module")
def relay(
    registered: dict[str, int], provider: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RelayProcess]:
    with a_relay_process(
        tmp_path_factory.mktemp("relay"),
        AUDIT_RELAY_ISSUER=provider.issuer,
        AUDIT_RELAY_AUDIENCE=AUDIENCE,
        AUDIT_RELAY_ORIGINS=APP,
        AUDIT_RELAY_BODY_MAX_BYTES="100000",
    ) as made:
        yield made


def test_what_is_answered_202_is_on_the_broker(
    relay: RelayProcess, raw: RawTopics, provider: Provider
) -> None:
    batches = [a_batch(*(an_event() for _ in range(100))), a_batch(an_event(action="session.end"))]
    for batch, token in zip(
        batches, (provider.token(algorithm="ES256"), relay.token()), strict=True
    ):
        status, answer, headers = relay.post(batch, token, Origin=APP)
        assert (status, headers["Access-Control-Allow-Origin"]) == (202, APP)
        assert {one["result"] for one in answer["events"]} == {"accepted"}
        assert raw.ids() >= Counter(one["event_id"] for one in batch["events"])

    assert raw.count() == 101
    sequences = sorted(
        event["producer"]["sequence"]
        for event in raw.events()
        if event["action"] == "invoice.download"
    )
    assert sequences == list(range(sequences[0], sequences[0] + 100))


def forged(provider: Provider) -> dict[str, str]:
    """Tokens that are not to be believed, by what is wrong with them."""
    head, claims, signature = provider.token().split(".")
    confused = {"alg": "HS256", "typ": "JWT", "kid": "rsa-1"}
    return {
        "signature": f"{head}.{claims}.{signature[:-6]}AAAAAA",
        "claims": f"{head}.{b64(provider.claims(tenant='globex'))}.{signature}",
        "expired": provider.token(exp=int(time.time()) - 100),
        "none": f"{b64({'alg': 'none', 'typ': 'JWT'})}.{claims}.",
        "public key as secret": hmac_signed(confused, provider.claims(), provider.public_pem()),
        "audience": provider.token(aud="https://other.example"),
        "issuer": provider.token(iss="https://other.example"),
        "unknown key": provider.token(kid="rsa-2"),
        "critical": provider.token(header={"crit": ["exp"]}),
        "no tenant": provider.token(tenant=None),
        "garbage": "x.y.z",
    }


BODIES: dict[str, tuple[Any, int]] = {
    "someone else's tenant": (a_batch(an_event(tenant="globex")), 422),
    "someone else's thing": (
        a_batch(an_event(resources=[{"type": "invoice", "id": "i-1", "tenant": "globex"}])),
        422,
    ),
    "somebody else": (a_batch(an_event(actor={"id": "u-2"})), 422),
    "one bad of many": (a_batch(*(an_event() for _ in range(99)), an_event(outcome="x")), 422),
    "not allowed": (a_batch(an_event(), an_event(action="user.delete")), 422),
    "too many": (a_batch(*(an_event() for _ in range(101))), 422),
    "stale": (a_batch(an_event(event_id=uuid7(now_us() - 3_600_000_000))), 422),
    "no events": ({}, 422),
    "oversized": (a_batch(an_event(labels={"k": "x" * 200_000})), 413),
    "malformed": (b'{"events": [', 400),
    "deep": (b'{"events":' + b"[" * 40_000 + b"]" * 40_000 + b"}", 400),
    "duplicate key": (json.dumps(a_batch()).encode()[:-1] + b',"events":[]}', 400),
    "no UTF-8": (json.dumps(a_batch()).encode() + b"\xff", 400),
    "empty": (b"", 400),
}


def test_no_refusal_leaves_an_event_behind(
    relay: RelayProcess, raw: RawTopics, provider: Provider
) -> None:
    for why, token in forged(provider).items():
        status, answer, headers = relay.post(a_batch(), token)
        assert (why, status) == (why, 401)
        assert answer["type"].endswith("token-refused")
        assert headers["WWW-Authenticate"].startswith("Bearer ")
        assert relay.post({**a_batch(), "token": token})[0] == 401
    assert relay.post(a_batch())[0] == 401
    for why, (body, wanted) in BODIES.items():
        status, answer, headers = relay.post(body, provider.token())
        assert (why, status) == (why, wanted)
        assert headers["Content-Type"] == "application/problem+json"
        assert answer["status"] == wanted
    for headers, wanted in (
        ({"Content_Type": "application/xml"}, 415),
        ({"Content_Encoding": "gzip"}, 415),
        ({"Origin": "https://evil.example"}, 403),
    ):
        assert relay.post(a_batch(), provider.token(), **headers)[0] == wanted

    settle()
    assert raw.count() == 0


def test_a_length_that_lies_does_no_harm(
    relay: RelayProcess, raw: RawTopics, provider: Provider
) -> None:
    address = urlsplit(relay.url)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {provider.token()}\r\n"
    )
    body = json.dumps(a_batch()).encode()
    endless = b"Transfer-Encoding: chunked\r\n\r\n" + b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    for rest, wanted in (
        (b"Content-Length: 999999999999\r\n\r\n" + body, b"413"),
        (b"Content-Length: 10\r\n\r\n" + body, b"400"),
        (b"Content-Length: -1\r\n\r\n" + body, b"400"),
        (b"Content-Length: 10\r\nContent-Length: 20\r\n\r\n" + body, b"400"),
        (
            endless
            + b"8000\r\n"
            + b" " * 0x8000
            + b"\r\n"
            + b"8000\r\n"
            + b" " * 0x8000
            + b"\r\n"
            + b"8000\r\n"
            + b" " * 0x8000
            + b"\r\n",
            b"413",
        ),
    ):
        with socket.create_connection((address.hostname, address.port), 10) as client:
            client.sendall(head.encode() + rest)
            assert client.recv(65_536).split(b" ")[1] == wanted
    settle()
    assert raw.count() == 0
    assert relay.post(a_batch(), provider.token())[0] == 202


def test_a_body_that_never_comes_is_ended(registered: dict[str, int], tmp_path: Path) -> None:
    with a_relay_process(tmp_path, AUDIT_RELAY_BODY_TIMEOUT_S="0.5") as relay:
        address = urlsplit(relay.url)
        with socket.create_connection((address.hostname, address.port), 10) as client:
            client.sendall(
                f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                "Content-Length: 100\r\n\r\n{".encode()
            )
            began = time.monotonic()
            assert client.recv(65_536).split(b" ")[1] == b"408"
            assert time.monotonic() - began < 5


def test_headers_say_nothing_of_who_and_where(
    relay: RelayProcess, raw: RawTopics, provider: Provider
) -> None:
    spoofed = {
        "X_Forwarded_For": "198.51.100.66",
        "Forwarded": "for=198.51.100.66",
        "X_Real_IP": "198.51.100.66",
        "X_Tenant": "globex",
        "X_User": "root",
        "User_Agent": "Trial/1.0",
    }
    assert relay.post(a_batch(), provider.token(sub="ada"), **spoofed)[0] == 202

    (event,) = raw.events()
    assert event["source"]["ip"] == "127.0.0.1"
    assert event["source"]["user_agent"] == "Trial/1.0"
    assert (event["tenant"], event["actor"]["id"]) == ("acme", "ada")


def test_rates_hold_and_a_replay_is_published_once(
    registered: dict[str, int], raw: RawTopics, tmp_path: Path
) -> None:
    with a_relay_process(tmp_path, AUDIT_RELAY_ACTOR_EVENTS_PER_MINUTE="100") as relay:
        token, batch = relay.token(), a_batch(an_event(), an_event())
        assert relay.post(batch, token)[0] == 202
        for _ in range(3):
            status, answer, _ = relay.post(batch, token)
            assert status == 202
            assert {one["result"] for one in answer["events"]} == {"duplicate"}
        stolen = {**batch["events"][0], "labels": {"k": "v"}}
        assert relay.post(a_batch(stolen, an_event()), token)[0] == 409
        assert relay.post(batch, relay.token("u-2"))[0] == 409
        statuses = [relay.post(b"{", token)[0] for _ in range(100)]
        assert statuses.count(429) == 10
        status, _, headers = relay.post(a_batch(), token)
        assert (status, headers["Content-Type"]) == (429, "application/problem+json")
        assert 1 <= int(headers["Retry-After"]) <= 60
        assert raw.ids() == Counter(one["event_id"] for one in batch["events"])


def test_a_broker_that_is_away_is_503_and_the_same_ids_arrive_once(
    registered: dict[str, int], raw: RawTopics, line: FaultProxy, tmp_path: Path
) -> None:
    with a_relay_process(
        tmp_path, AUDIT_KAFKA_BOOTSTRAP=line.address, AUDIT_RELAY_ACK_TIMEOUT_S="2"
    ) as relay:
        token = relay.token()
        first, second = a_batch(), a_batch(an_event(), an_event())
        assert relay.post(first, token)[0] == 202
        line.set(Fault.DOWN)
        for _ in range(2):
            began = time.monotonic()
            status, answer, headers = relay.post(second, token)
            assert (status, headers["Retry-After"]) == (503, "2")
            assert answer["type"].endswith("broker-away")
            assert time.monotonic() - began < 6
        wait_until(lambda: not relay.is_ready(), 20)
        line.set(Fault.NONE)
        wait_until(lambda: relay.post(second, token)[0] == 202, 30)
        wait_until(relay.is_ready, 20)

    wanted = [one["event_id"] for one in (*first["events"], *second["events"])]
    assert raw.ids() == Counter(wanted)
