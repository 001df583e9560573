"""A key service in memory that speaks as AWS KMS does: JSON 1.1 over HTTP, real AES-GCM.

As the real one it binds a ciphertext to its encryption context and key, and tells a wrong one
from a missing permission. It checks no signature; it does want one.
"""

from __future__ import annotations

import json
import os
import threading
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_ID_BYTES = 36


class Refused(Exception):
    """An answer with status 400 and this type."""


class KeyService:
    """Keys by id; ``calls`` counts operations, ``contexts`` has every encryption context seen."""

    def __init__(self, *key_ids: str) -> None:
        self._keys = {key_id: AESGCM(os.urandom(32)) for key_id in key_ids}
        self.calls: Counter[str] = Counter()
        self.contexts: set[str] = set()
        self.denied = False
        self.url = ""

    def answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        self.calls[operation] += 1
        context = request.get("EncryptionContext", {})
        self.contexts |= set(context.values())
        if self.denied:
            raise Refused("AccessDeniedException")
        if operation == "Decrypt":
            return self._decrypt(request, context)
        key_id = self._known(request["KeyId"])
        if operation == "Encrypt":
            return self._encrypt(key_id, b64decode(request["Plaintext"]), context)
        if operation not in ("GenerateDataKey", "GenerateDataKeyWithoutPlaintext"):
            raise Refused("UnsupportedOperationException")
        if request.get("KeySpec") != "AES_256":
            raise Refused("ValidationException")
        plain = os.urandom(32)
        answer = self._encrypt(key_id, plain, context)
        if operation == "GenerateDataKey":
            answer["Plaintext"] = b64encode(plain).decode()
        return answer

    def _known(self, key_id: str) -> str:
        if key_id not in self._keys:
            raise Refused("NotFoundException")
        return key_id

    def _encrypt(self, key_id: str, plain: bytes, context: dict[str, str]) -> dict[str, Any]:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._keys[key_id].encrypt(nonce, plain, _bound(context))
        blob = key_id.encode().ljust(_ID_BYTES) + nonce + sealed
        return {"KeyId": key_id, "CiphertextBlob": b64encode(blob).decode()}

    def _decrypt(self, request: dict[str, Any], context: dict[str, str]) -> dict[str, Any]:
        blob = b64decode(request["CiphertextBlob"])
        key_id = blob[:_ID_BYTES].decode(errors="replace").strip()
        if key_id not in self._keys:
            raise Refused("InvalidCiphertextException")
        if self._known(request.get("KeyId", key_id)) != key_id:
            raise Refused("IncorrectKeyException")
        nonce, sealed = blob[_ID_BYTES:][:_NONCE_BYTES], blob[_ID_BYTES + _NONCE_BYTES :]
        try:
            plain = self._keys[key_id].decrypt(nonce, sealed, _bound(context))
        except (InvalidTag, ValueError):
            raise Refused("InvalidCiphertextException") from None
        return {"KeyId": key_id, "Plaintext": b64encode(plain).decode()}


def _bound(context: dict[str, str]) -> bytes:
    return json.dumps(context, sort_keys=True).encode()


def _require_signature(authorization: str) -> None:
    if "Credential=" not in authorization:
        raise Refused("MissingAuthenticationToken")


@contextmanager
def key_service(*key_ids: str) -> Iterator[KeyService]:
    """The service on a loopback port."""
    service = KeyService(*key_ids)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            target = self.headers["x-amz-target"].removeprefix("TrentService.")
            status = 200
            try:
                _require_signature(self.headers.get("authorization", ""))
                answer = service.answer(target, json.loads(body))
            except Refused as refused:
                status, answer = 400, {"__type": str(refused)}
            encoded = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/x-amz-json-1.1")
            self.send_header("content-length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *_words: Any) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
