"""The issuer of the application's tokens: which of its keys count, how often it is asked, and when it is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.relay_support import AUDIENCE, TOKEN_KEY, Provider, b64, hmac_signed
from tests.unit.relay_client import Relay, a_relay, assert_refused


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


@pytest.fixture
def relay(tmp_path: Path, provider: Provider) -> Iterator[Relay]:
    with a_relay(tmp_path, issuer=provider.issuer, audience=AUDIENCE, keys_refetch_s=60) as made:
        yield made


def test_the_tenants_claim_and_the_kind_of_id_are_settings(
    tmp_path: Path, provider: Provider
) -> None:
    with a_relay(
        tmp_path, issuer=provider.issuer, audience=AUDIENCE, tenant_claim="org", id_type="email"
    ) as relay:
        assert_refused(relay, provider.token(), "org is no name")
        assert relay.post(token=provider.token(org="globex")).status_code == 202
        (event,) = relay.audit.events()
        assert (event["tenant"], event["actor"]["id_type"]) == ("globex", "email")


def test_keys_that_may_not_verify_are_left_out(tmp_path: Path, provider: Provider) -> None:
    weak = rsa.generate_private_key(public_exponent=65_537, key_size=1024)
    published = provider.keys[0]
    provider.keys = [
        {**published, "kid": "for-encryption", "use": "enc"},
        {**published, "kid": "for-other", "alg": "RS512"},
        {**published, "kid": "wraps", "key_ops": ["wrapKey"]},
        {**RSAAlgorithm.to_jwk(weak.public_key(), as_dict=True), "kid": "weak"},
        {"kty": "oct", "k": b64(TOKEN_KEY), "kid": "secret"},
        {**published, "kid": "broken", "n": "!"},
        "no key",
    ]
    with a_relay(tmp_path, issuer=provider.issuer, audience=AUDIENCE) as relay:
        for kid in ("for-encryption", "for-other", "wraps", "broken"):
            assert_refused(relay, provider.token(kid=kid), "no such key")
        assert_refused(relay, provider.token(kid="weak", key=weak), "no such key")
        head = {"alg": "HS256", "kid": "secret"}
        assert_refused(relay, hmac_signed(head, provider.claims(), TOKEN_KEY), "algorithm")


def test_keys_that_a_token_brings_along_are_not_looked_at(relay: Relay, provider: Provider) -> None:
    mine = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    jwk = RSAAlgorithm.to_jwk(mine.public_key(), as_dict=True)
    for header in ({"jwk": jwk}, {"jku": provider.issuer + "/mine"}, {"x5u": "http://127.0.0.1/x"}):
        assert_refused(relay, provider.token(key=mine, header=header), "signature")
    assert set(provider.asked) == {"/realm/.well-known/openid-configuration", "/realm/keys"}


def test_an_unknown_key_asks_the_issuer_once_in_a_while(tmp_path: Path, provider: Provider) -> None:
    kept = provider.keys
    provider.keys = kept[1:]
    with a_relay(tmp_path, issuer=provider.issuer, audience=AUDIENCE, keys_refetch_s=0.5) as relay:
        for _ in range(20):
            assert relay.post(token=provider.token()).status_code == 401
        assert provider.asked["/realm/keys"] <= 2
        provider.keys = kept  # the issuer has changed its keys
        time.sleep(0.6)
        assert relay.post(token=provider.token()).status_code == 202


def test_an_issuer_that_is_away_is_an_outage_and_no_bad_token(
    tmp_path: Path, provider: Provider
) -> None:
    provider.away = True
    with a_relay(
        tmp_path, issuer=provider.issuer, audience=AUDIENCE, keys_refetch_s=0.3, keys_lifetime_s=1.5
    ) as relay:
        for _ in range(3):
            answer = relay.post(token=provider.token())
            assert answer.status_code == 503
            assert answer.json()["type"].endswith("issuer-away")
            assert answer.headers["retry-after"] == "2"
        assert relay.sent == 0
        assert sum(provider.asked.values()) <= 2
        assert relay.post().status_code == 202  # relay tokens need no issuer

        provider.away = False
        time.sleep(0.4)
        assert relay.post(token=provider.token()).status_code == 202
        provider.away = True
        assert relay.post(token=provider.token()).status_code == 202  # by the keys it has
        time.sleep(0.4)
        assert relay.post(token=provider.token(kid="new")).status_code == 503
        time.sleep(1.5)
        assert (
            relay.post(token=provider.token()).status_code == 503
        )  # for no longer than their life


@pytest.mark.parametrize(
    "described",
    [
        {"issuer": "https://other.example"},
        {"jwks_uri": "http://keys.example/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
    ],
)
def test_a_description_that_does_not_fit_is_not_followed(
    tmp_path: Path, provider: Provider, described: dict[str, Any]
) -> None:
    provider.described = described
    with a_relay(tmp_path, issuer=provider.issuer, audience=AUDIENCE) as relay:
        assert relay.post(token=provider.token()).status_code == 503
        assert "/realm/keys" not in provider.asked
