"""What the tests of the relay share: an OpenID provider with real keys, tokens, batches."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from audit_sdk.identity import now_us, uuid7
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "https://audit.acme.example"
TOKEN_KEY = bytes(range(32))
_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
_EC = ec.generate_private_key(ec.SECP256R1())


class Provider:
    """An OpenID provider on loopback: description and keys, as real ones serve them.

    ``keys`` may be changed at any time; ``asked`` counts requests by path; ``away``: it answers 503.
    """

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        self.away = False
        self.described: dict[str, Any] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked[self.path] = provider.asked.get(self.path, 0) + 1
                found = provider.pages().get(self.path)
                status = 503 if provider.away else 404 if found is None else 200
                body = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}/realm"
        self.keys = [
            {**RSAAlgorithm.to_jwk(_RSA.public_key(), as_dict=True), "kid": "rsa-1", "use": "sig"},
            {**ECAlgorithm.to_jwk(_EC.public_key(), as_dict=True), "kid": "ec-1", "alg": "ES256"},
        ]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def pages(self) -> dict[str, Any]:
        described = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys", **self.described}
        return {
            "/realm/.well-known/openid-configuration": described,
            "/realm/keys": {"keys": self.keys},
        }

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "u-1",
            "tenant": "acme",
            "iat": now,
            "exp": now + 300,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        *,
        algorithm: str = "RS256",
        kid: str | None = None,
        key: Any = None,
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        own = {"RS256": (_RSA, "rsa-1"), "ES256": (_EC, "ec-1")}.get(algorithm, (key, "rsa-1"))
        headers = {"kid": kid or own[1], **(header or {})}
        return jwt.encode(self.claims(**claims), key or own[0], algorithm, headers)

    def public_pem(self) -> bytes:
        return _RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def b64(content: Any) -> str:
    octets = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def hmac_signed(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """A token under HS256, whatever the secret: a library refuses to sign with a public key."""
    import hashlib
    import hmac

    signed = f"{b64(header)}.{b64(claims)}"
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def an_event(**changes: Any) -> dict[str, Any]:
    """A download click."""
    event = {
        "event_id": uuid7(now_us()),
        "action": "invoice.download",
        "resources": [{"type": "invoice", "id": "i-58d1"}],
        **changes,
    }
    return {name: value for name, value in event.items() if value is not ...}


def a_batch(*events: dict[str, Any]) -> dict[str, Any]:
    return {"events": list(events or (an_event(),))}
