"""The application's tokens: verified by the keys that its OpenID provider publishes.

The provider's description and key set are fetched when they are first needed, kept for a lifetime, and
asked for again at most once per ``refetch_s``, whatever key ids tokens name. A key verifies with its own
algorithm alone: RSA (2048 bits or more) RS256, P-256 ES256. A provider that does not answer is an outage
(503), not a bad token. Source: OpenID Connect Discovery 1.0 §4, RFC 7517.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import jwt

from pipeline.api.problems import Kind, Refusal
from pipeline.api.settings import is_safe_url
from pipeline.api.tokens import Principal, decoded, principal, refused
from pipeline.logging import log_event

log = logging.getLogger(__name__)

_ALGORITHMS: Final = ("RS256", "ES256")
_RSA_MIN_BITS: Final = 2048
_DESCRIPTION: Final = "/.well-known/openid-configuration"


class IssuerAway(Exception):
    """The provider gives no usable keys now."""


@dataclass(frozen=True, slots=True)
class _KeySet:
    keys: Mapping[tuple[str, str], Any]  # (kid, algorithm) → public key
    at: float


class IssuerKeys:
    """The provider's keys, cached. Thread-safe; one fetch at a time."""

    def __init__(
        self,
        issuer: str,
        client: httpx.Client,
        *,
        lifetime_s: float,
        refetch_s: float,
        timeout_s: float,
        max_keys: int,
        max_bytes: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._client = client
        self._lifetime_s = lifetime_s
        self._refetch_s = refetch_s
        self._timeout_s = timeout_s
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._fetching = threading.Lock()
        self._known = _KeySet({}, float("-inf"))
        self._tried_at = float("-inf")
        self._away = False

    def find(self, kid: str, algorithm: str) -> Any:
        """The key of that id and algorithm; None: the provider has none.

        Raises:
            IssuerAway: Nobody can say now.
        """
        name = (kid, algorithm)
        if self._fresh() and name in self._known.keys:
            return self._known.keys[name]
        with self._fetching:
            if not (self._fresh() and name in self._known.keys):
                self._fetch_if_due()
            if not self._fresh() or (self._away and name not in self._known.keys):
                raise IssuerAway
            return self._known.keys.get(name)

    def _fresh(self) -> bool:
        return self._monotonic() - self._known.at < self._lifetime_s

    def _fetch_if_due(self) -> None:
        if self._monotonic() - self._tried_at < self._refetch_s:
            return
        self._tried_at = self._monotonic()
        try:
            self._known = _KeySet(self._fetch(), self._monotonic())
            self._away = False
        except (httpx.HTTPError, ValueError, RecursionError) as error:
            self._away = True
            log_event(
                log, "issuer_keys_not_fetched", level=logging.WARNING, why=type(error).__name__
            )

    def _fetch(self) -> dict[tuple[str, str], Any]:
        described = self._get(self._issuer.rstrip("/") + _DESCRIPTION)
        if described.get("issuer") != self._issuer:
            raise ValueError("the description names another issuer")
        address = described.get("jwks_uri")
        if not isinstance(address, str) or not is_safe_url(address):
            raise ValueError("jwks_uri must be https, or http on a loopback address")
        listed = self._get(address).get("keys")
        if not isinstance(listed, list) or len(listed) > self._max_keys:
            raise ValueError("no list of keys, or too many")
        found = {}
        for one in listed:
            usable = _usable(one)
            if usable is not None:
                kid, algorithm, key = usable
                found[kid, algorithm] = key
        return found

    def _get(self, url: str) -> dict[str, Any]:
        """A JSON object of at most ``max_bytes``; redirects are not followed."""
        deadline = self._monotonic() + self._timeout_s
        with self._client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
            answer.raise_for_status()
            if answer.is_redirect:
                raise ValueError("redirects are not followed")
            body = bytearray()
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > self._max_bytes:
                    raise ValueError("the answer is too large")
                if self._monotonic() > deadline:
                    raise ValueError("the answer is too slow")
        parsed = json.loads(body)
        if not isinstance(parsed, dict):
            raise ValueError("the answer is no object")  # noqa: TRY004 - of the answer, not of a call
        return parsed


class ApplicationTokens:
    """Tokens of the configured issuer, for the configured audience."""

    def __init__(
        self,
        keys: IssuerKeys,
        *,
        issuer: str,
        audience: str,
        tenant_claim: str,
        leeway_s: float,
        retry_after_s: int,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._tenant_claim = tenant_claim
        self._leeway_s = leeway_s
        self._retry_after_s = retry_after_s

    def verify(self, token: str, header: Mapping[str, Any], /) -> Principal:
        """Whom it speaks for; raises ``Refusal``."""
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in _ALGORITHMS:
            raise refused("its algorithm is not accepted")
        if not isinstance(kid, str) or not kid:
            raise refused("it names no key")
        try:
            key = self._keys.find(kid, algorithm)
        except IssuerAway:
            raise Refusal(
                Kind.ISSUER_AWAY,
                "the issuer's keys cannot be had now; send the same events again",
                retry_after_s=self._retry_after_s,
            ) from None
        if key is None:
            raise refused("the issuer has no such key")
        claims = decoded(
            token,
            key,
            algorithm,
            audience=self._audience,
            issuer=self._issuer,
            required=("aud", "iss", "sub", "exp"),
            leeway_s=self._leeway_s,
        )
        return principal(claims, self._tenant_claim, issuer=self._issuer)


def _usable(one: Any) -> tuple[str, str, Any] | None:
    """(key id, its one algorithm, public key) of a key that may verify tokens; None: of another kind."""
    if not isinstance(one, dict) or not isinstance(one.get("kid"), str):
        return None
    kinds = {("RSA", None): "RS256", ("EC", "P-256"): "ES256"}
    kind, curve = one.get("kty"), one.get("crv")
    if not isinstance(kind, str) or not (curve is None or isinstance(curve, str)):
        return None
    algorithm = kinds.get((kind, curve))
    if algorithm is None or one.get("alg", algorithm) != algorithm:
        return None
    if (
        one.get("use", "sig") != "sig"
        or "verify" not in one.get("key_ops", ["verify"])
        or "d" in one
    ):
        return None
    try:
        key = jwt.PyJWK(one, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if kind == "RSA" and key.key_size < _RSA_MIN_BITS:
        return None
    return one["kid"], algorithm, key
