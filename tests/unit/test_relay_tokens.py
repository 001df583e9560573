"""Tokens: each way to forge one is refused, an issuer that is away is an outage, and nothing is recorded."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from audit_sdk import contract
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pipeline.api.settings import RelaySettings, load_relay_settings
from pipeline.api.tokens import RelayTokens
from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.relay import make_tokens
from tests.relay_support import AUDIENCE, TOKEN_KEY, Provider, b64, hmac_signed
from tests.unit.relay_client import Relay, a_relay, assert_refused

RELAY_HEADER = {"alg": "HS256", "typ": "audit-relay+jwt"}


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


@pytest.fixture
def relay(tmp_path: Path, provider: Provider) -> Iterator[Relay]:
    with a_relay(tmp_path, issuer=provider.issuer, audience=AUDIENCE, keys_refetch_s=60) as made:
        yield made


def relay_claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "aud": "audit-relay",
        "sub": "u-1",
        "tenant": "acme",
        "iat": now,
        "exp": now + 300,
        "jti": "j-1",
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_the_applications_token_says_who_and_of_which_tenant(
    relay: Relay, provider: Provider, algorithm: str
) -> None:
    token = provider.token(algorithm=algorithm, sub="ada", tenant="globex", aud=["x", AUDIENCE])

    assert relay.post(token=token).status_code == 202
    (event,) = relay.audit.events()
    assert (event["tenant"], event["actor"]["id"]) == ("globex", "ada")
    assert event["actor"]["tenant"] == event["resources"][0]["tenant"] == "globex"
    assert event["session"]["issuer"] == provider.issuer


def test_forged_tokens_are_refused(relay: Relay, provider: Provider) -> None:
    good = provider.token()
    head, claims, signature = good.split(".")
    other = b64({**provider.claims(), "tenant": "globex"})
    stranger = rsa.generate_private_key(public_exponent=65_537, key_size=2048)

    assert_refused(relay, f"{head}.{other}.{signature}", "signature")
    assert_refused(relay, f"{head}.{claims}.{signature[:-8]}AAAAAAAA", "signature")
    assert_refused(relay, f"{head}.{claims}.", "signature")
    assert_refused(relay, provider.token(key=stranger), "signature")


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("kind", ["JWT", "audit-relay+jwt"])
def test_no_algorithm_is_no_algorithm(
    relay: Relay, provider: Provider, name: str, kind: str
) -> None:
    head = b64({"alg": name, "typ": kind, "kid": "rsa-1"})

    for claims in (provider.claims(), relay_claims()):
        assert_refused(relay, f"{head}.{b64(claims)}.")
        assert_refused(relay, f"{head}.{b64(claims)}.{b64(b'x')}")


def test_a_public_key_is_no_secret(relay: Relay, provider: Provider) -> None:
    """HS256 with what everybody can read as the secret: CVE-2022-29217 and its like."""
    jwk = json.dumps(provider.keys[0]).encode()
    for secret in (provider.public_pem(), provider.public_pem().strip(), jwk, b""):
        for kind in ("JWT", "at+jwt"):
            head = {"alg": "HS256", "typ": kind, "kid": "rsa-1"}
            assert_refused(relay, hmac_signed(head, provider.claims(), secret), "algorithm")
        assert_refused(relay, hmac_signed(RELAY_HEADER, relay_claims(), secret), "signature")


def test_a_key_verifies_with_its_own_algorithm_alone(relay: Relay, provider: Provider) -> None:
    _, claims, signature = provider.token().split(".")
    for head in (
        {"alg": "ES256", "kid": "rsa-1"},
        {"alg": "RS256", "kid": "ec-1"},
        {"alg": "RS512", "kid": "rsa-1"},
        {"alg": "PS256", "kid": "rsa-1"},
        {"alg": ["RS256"], "kid": "rsa-1"},
        {"alg": None, "kid": "rsa-1"},
    ):
        assert_refused(relay, f"{b64(head)}.{claims}.{signature}")
    p384 = ec.generate_private_key(ec.SECP384R1())
    assert_refused(relay, provider.token(algorithm="ES384", key=p384), "algorithm")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"exp": 1_700_000_000}, "expired"),
        ({"exp": None}, "claim"),
        ({"exp": "soon"}, ""),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"iat": 4_000_000_000}, "not valid yet"),
        ({"aud": "https://other.example"}, "audience"),
        ({"aud": None}, "claim"),
        ({"aud": [AUDIENCE + "/"]}, "audience"),
        ({"iss": "https://other.example"}, "issuer"),
        ({"iss": None}, "claim"),
        ({"sub": None}, "claim"),
        ({"sub": ""}, ""),
        ({"sub": "a\nb"}, "printable"),
        ({"sub": "x" * (contract().limits.text_chars + 1)}, "sub"),
        ({"tenant": None}, "tenant"),
        ({"tenant": ["acme"]}, "tenant"),
        ({"tenant": {"a": 1}}, "tenant"),
    ],
)
def test_claims_that_do_not_fit_are_refused(
    relay: Relay, provider: Provider, change: dict[str, Any], why: str
) -> None:
    assert_refused(relay, provider.token(**change), why)


def test_a_name_is_as_long_as_any_text_of_an_event(
    relay: Relay, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = replace(contract(), limits=replace(contract().limits, text_chars=40))
    monkeypatch.setattr("pipeline.api.tokens.contract", lambda: shorter, raising=False)

    assert_refused(relay, provider.token(sub="x" * 41), "sub")
    assert relay.post(token=provider.token(sub="x" * 40)).status_code == 202


def test_clocks_may_differ_by_the_leeway(relay: Relay, provider: Provider) -> None:
    now = int(time.time())

    assert_refused(relay, provider.token(exp=now - 40), "expired")
    assert relay.post(token=provider.token(exp=now - 5)).status_code == 202


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"typ": "logout+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": "audit-relay+jwt"},
        {"kid": ""},
        {"kid": "no-such-key"},
        {"kid": "../../rsa-1"},
    ],
)
def test_headers_that_do_not_fit_are_refused(
    relay: Relay, provider: Provider, header: dict[str, Any]
) -> None:
    assert_refused(relay, provider.token(header=header))


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b.c",
        "..",
        "x" * 9_000,
        b64({"alg": "RS256"}) + "." + b64({}) + ".",
        b64(b"[" * 3_000) + "." + b64({}) + ".x",
        b64(b'"x"') + "." + b64({}) + ".x",
        "é.é.é",
    ],
    ids=range(8),
)
def test_what_is_no_token_is_refused(relay: Relay, token: str) -> None:
    answer = relay.post({"events": [], "token": token}, None)

    assert answer.status_code == 401
    assert relay.sent == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"aud": AUDIENCE}, "audience"),
        ({"jti": None}, "claim"),
        ({"iat": None}, "claim"),
        ({"sub": None}, "claim"),
        ({"tenant": None}, "claim"),
        ({"exp": int(time.time()) + 100_000}, "longer"),
        ({"iat": int(time.time()) - 100_000}, "longer"),
        ({"exp": int(time.time()) - 100}, "expired"),
        ({"exp": True}, ""),
        ({"iat": True}, ""),
    ],
)
def test_relay_tokens_that_do_not_fit_are_refused(
    relay: Relay, change: dict[str, Any], why: str
) -> None:
    assert_refused(relay, hmac_signed(RELAY_HEADER, relay_claims(**change), TOKEN_KEY), why)


def test_a_relay_token_is_told_by_its_type_alone(relay: Relay, provider: Provider) -> None:
    for kind in ("JWT", "", "relay+jwt"):
        header = {"alg": "HS256", "typ": kind, "kid": "rsa-1"}
        assert_refused(relay, hmac_signed(header, relay_claims(), TOKEN_KEY))
    for algorithm in ("HS384", "HS512"):
        header = {"typ": "audit-relay+jwt"}
        token = jwt.encode(relay_claims(), TOKEN_KEY * 2, algorithm, header)
        assert_refused(relay, token)
    assert relay.post(token=hmac_signed(RELAY_HEADER, relay_claims(), TOKEN_KEY)).status_code == 202


def test_a_kind_that_is_not_configured_is_refused(tmp_path: Path, provider: Provider) -> None:
    with a_relay(tmp_path) as relay:
        assert_refused(relay, provider.token(), "not taken here")
        relayed = relay.token()
    with a_relay(tmp_path, issuer=provider.issuer, audience=AUDIENCE, token_key_file=None) as relay:
        assert_refused(relay, relayed, "not taken here")


def test_a_minted_token_lives_no_longer_than_the_setting() -> None:
    tokens = RelayTokens(TOKEN_KEY, max_life_s=900, leeway_s=30)

    with pytest.raises(ValueError, match="1 to 900 s"):
        tokens.mint("acme", "u-1", 901)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"issuer": "http://login.acme.example", "audience": "x"}, "AUDIT_RELAY_ISSUER"),
        ({"issuer": "https://login.acme.example"}, "AUDIT_RELAY_AUDIENCE"),
        ({"origins": "https://app.acme.example/"}, "AUDIT_RELAY_ORIGINS"),
        ({"origins": "*"}, "AUDIT_RELAY_ORIGINS"),
        ({"trusted_proxies": "10.0.0.0/33"}, "AUDIT_RELAY_TRUSTED_PROXIES"),
        ({"actor_events_per_minute": 99}, "AUDIT_RELAY_ACTOR_EVENTS_PER_MINUTE"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_relay_settings(**settings)


def test_a_relay_that_would_take_no_tokens_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="takes no tokens"):
        make_tokens(RelaySettings())
    for content, mode, said in (
        ("00", 0o600, "64 hex digits"),
        ("00" * 32, 0o644, "open to others"),
    ):
        key = tmp_path / f"key-{mode}"
        key.write_text(content)
        key.chmod(mode)
        with pytest.raises(ConfigurationError, match=said):
            make_tokens(RelaySettings(token_key_file=key))
