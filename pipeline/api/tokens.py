"""Who sends: a token, verified by the one verifier that its ``typ`` names, never by what ``alg`` says.

``typ`` audit-relay+jwt: a relay token, which a backend of the application minted (HS256, a secret of
its own). No ``typ``, JWT or at+jwt: the application's own token, by the issuer's keys (``oidc.py``). Any
other ``typ``, every ``crit`` and every other algorithm is refused. Source: RFC 8725 (BCP 225), RFC 7515
§4.1.11.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import jwt
from audit_sdk import contract

from pipeline.api.problems import Kind, Refusal

RELAY_TYPE: Final = "audit-relay+jwt"
RELAY_AUDIENCE: Final = "audit-relay"
_RELAY_ALGORITHM: Final = "HS256"
_OTHER_TYPES: Final = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
_UNREADABLE: Final = "it cannot be read"
# What PyJWT finds wrong, in words that tell of the check and not of the token.
_SAID: Final[Mapping[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is of another issuer",
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.InvalidAlgorithmError: "its algorithm is not accepted",
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a token speaks for."""

    tenant: str
    actor_id: str
    issuer: str | None  # of the application's tokens


class Verifier(Protocol):
    """One kind of token."""

    def verify(self, token: str, header: Mapping[str, Any], /) -> Principal:
        """Whom it speaks for; raises ``Refusal``."""
        ...


class Tokens:
    """Both kinds. One that is not configured is refused."""

    def __init__(
        self, application: Verifier | None, relay: Verifier | None, *, max_bytes: int
    ) -> None:
        self._application = application
        self._relay = relay
        self._max_bytes = max_bytes

    def verify(self, token: str) -> Principal:
        """Whom a token speaks for.

        Raises:
            Refusal: 401; or 503 if the issuer's keys cannot be had now.
        """
        if len(token) > self._max_bytes:
            raise refused(f"it is longer than {self._max_bytes} bytes")
        header = _header(token)
        if "crit" in header:
            raise refused("it has a critical extension")
        kind = str(header.get("typ", "")).lower()
        if kind == RELAY_TYPE:
            verifier = self._relay
        elif kind in _OTHER_TYPES:
            verifier = self._application
        else:
            raise refused("it is of another type")
        if verifier is None:
            raise refused("tokens of this kind are not taken here")
        return verifier.verify(token, header)


class RelayTokens:
    """Short-lived tokens under a secret that the relay shares with the application's backends."""

    def __init__(
        self,
        key: bytes,
        *,
        max_life_s: int,
        leeway_s: float,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._max_life_s = max_life_s
        self._leeway_s = leeway_s
        self._now_s = now_s

    def mint(self, tenant: str, actor_id: str, life_s: int) -> str:
        """A token for one actor. Raises ``ValueError`` if its life is too long."""
        if not 0 < life_s <= self._max_life_s:
            raise ValueError(
                f"a relay token lives 1 to {self._max_life_s} s (AUDIT_RELAY_TOKEN_MAX_S)"
            )
        now = int(self._now_s())
        claims = {
            "aud": RELAY_AUDIENCE,
            "sub": actor_id,
            "tenant": tenant,
            "iat": now,
            "exp": now + life_s,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(claims, self._key, _RELAY_ALGORITHM, {"typ": RELAY_TYPE})

    def verify(self, token: str, _header: Mapping[str, Any], /) -> Principal:
        """Whom it speaks for; raises ``Refusal``."""
        claims = decoded(
            token,
            self._key,
            _RELAY_ALGORITHM,
            audience=RELAY_AUDIENCE,
            required=("aud", "sub", "tenant", "iat", "exp", "jti"),
            leeway_s=self._leeway_s,
        )
        if claims["exp"] - claims["iat"] > self._max_life_s:
            raise refused(f"it lives longer than {self._max_life_s} s")
        return principal(claims, "tenant", issuer=None)


def decoded(
    token: str,
    key: Any,
    algorithm: str,
    *,
    audience: str,
    required: tuple[str, ...],
    leeway_s: float,
    issuer: str | None = None,
) -> dict[str, Any]:
    """The claims of a token whose signature, times, audience and issuer are right; else ``Refusal``."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=audience,
            issuer=issuer,
            leeway=leeway_s,
            options={"require": list(required), "enforce_minimum_key_length": True},
        )
    except jwt.PyJWTError as error:
        said = (text for kind, text in _SAID.items() if isinstance(error, kind))
        raise refused(next(said, "a claim is missing or wrong")) from None
    except (ValueError, OverflowError, TypeError, RecursionError):
        raise refused(_UNREADABLE) from None
    for name in ("iat", "exp"):
        if name in claims and type(claims[name]) not in (int, float):
            raise refused(f"{name} is no number")
    return claims


def principal(claims: Mapping[str, Any], tenant_claim: str, *, issuer: str | None) -> Principal:
    """Actor and tenant, if they are names that an event can carry."""
    named = {}
    for claim in ("sub", tenant_claim):
        value = claims.get(claim)
        if not isinstance(value, str) or not 0 < len(value) <= contract().limits.text_chars:
            raise refused(f"{claim} is no name of an actor or tenant")
        if not value.isprintable():
            raise refused(f"{claim} has characters that are not printable")
        named[claim] = value
    return Principal(named[tenant_claim], named["sub"], issuer)


def refused(why: str) -> Refusal:
    """A 401 that says which check failed."""
    return Refusal(Kind.TOKEN_REFUSED, why)


def _header(token: str) -> dict[str, Any]:
    """Not verified: it only chooses who verifies."""
    try:
        return jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise refused(_UNREADABLE) from None
