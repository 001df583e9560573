"""AWS KMS as the key provider: the root never leaves KMS, and its policy says who may use it.

A key is wrapped under a data key of KMS (envelope encryption), which stays in memory: a call to KMS
per tenant and process, one for all dead letters, and one for each data key of another process
that is met. The MAC key is a data key too, unwrapped once at the start.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from urllib3.exceptions import HTTPError

from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.keys.provider import KEY_BYTES, unwrap_key, wrap_key
from pipeline.settings import Settings
from pipeline.tls import failure

# The encryption context's one name: policies and CloudTrail see "tenant:acme", "dead-letter", "mac".
CONTEXT_NAME: Final = "audit-trail"
_MAC: Final = "mac"
_DEAD_LETTER: Final = "dead-letter"
_FORM: Final = b"\x01"
_LENGTH_BYTES: Final = 2
# Far below what random nonces allow under one AES-GCM key (2^32: NIST SP 800-38D §8.3).
_WRAPS_PER_DATA_KEY: Final = 1_000_000
_DATA_KEYS_KEPT: Final = 1_000

_WRONG_BLOB: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
# What a person must mend. Everything else that is not understood may pass: try again.
_WRONG_SETTINGS: Final = frozenset(
    {
        "AccessDeniedException",
        "DisabledException",
        "IncompleteSignature",
        "InvalidKeyUsageException",
        "InvalidSignatureException",
        "KMSInvalidStateException",
        "MissingAuthenticationToken",
        "NotFoundException",
        "UnrecognizedClientException",
        "ValidationException",
    }
)


class KmsClient(Protocol):
    """The calls of boto3's client that are made here."""

    def generate_data_key(self, **request: Any) -> dict[str, Any]: ...
    def generate_data_key_without_plaintext(self, **request: Any) -> dict[str, Any]: ...
    def decrypt(self, **request: Any) -> dict[str, Any]: ...


@dataclass(slots=True)
class _DataKey:
    cipher: AESGCM
    wrapped: bytes
    wraps: int = 0


class KmsKeyProvider:
    """See ``KeyProvider``; without a MAC key it makes no MAC. Any thread may call; a call may wait for KMS, so the event loop must not.

    Raises (every method but ``mac``):
        Unavailable: KMS does not answer; make the same call again later.
        ConfigurationError: KMS refuses, or the key was wrapped by another root or for another
            context.
    """

    def __init__(self, client: KmsClient, key_id: str, wrapped_mac_key: bytes | None) -> None:
        self._client = client
        self._key_id = key_id
        self._lock = Lock()
        self._wrapping: dict[str, _DataKey] = {}
        self._opened: OrderedDict[tuple[bytes, str], AESGCM] = OrderedDict()
        self._mac_key: bytes | None = None
        if wrapped_mac_key is not None:
            self._mac_key = self._decrypt(wrapped_mac_key, _MAC)

    def wrap(self, plain: bytes, context: bytes) -> bytes:
        with self._lock:
            data_key = self._data_key(_scope(context))
            data_key.wraps += 1
        length = len(data_key.wrapped).to_bytes(_LENGTH_BYTES, "big")
        return _FORM + length + data_key.wrapped + wrap_key(data_key.cipher, plain, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        start = len(_FORM) + _LENGTH_BYTES
        end = start + int.from_bytes(wrapped[len(_FORM) : start], "big")
        if not wrapped.startswith(_FORM) or len(wrapped) <= end:
            raise ConfigurationError(
                "a stored key cannot be unwrapped: it was not wrapped under AUDIT_KMS_KEY_ID"
            )
        with self._lock:
            cipher = self._open(wrapped[start:end], _scope(context))
        return unwrap_key(cipher, wrapped[end:], context)

    def mac(self, message: bytes) -> bytes:
        if self._mac_key is None:
            raise ConfigurationError("this process has no MAC key")
        return hmac.digest(self._mac_key, message, "sha256")

    def _data_key(self, scope: str) -> _DataKey:
        known = self._wrapping.get(scope)
        if known is not None and known.wraps < _WRAPS_PER_DATA_KEY:
            return known
        answer = _call(
            self._client.generate_data_key,
            KeyId=self._key_id,
            KeySpec="AES_256",
            EncryptionContext={CONTEXT_NAME: scope},
        )
        made = _DataKey(AESGCM(answer["Plaintext"]), answer["CiphertextBlob"])
        self._wrapping[scope] = made
        self._remember(made.wrapped, scope, made.cipher)
        return made

    def _open(self, wrapped: bytes, scope: str) -> AESGCM:
        known = self._opened.get((wrapped, scope))
        if known is None:
            known = AESGCM(self._decrypt(wrapped, scope))
        self._remember(wrapped, scope, known)
        return known

    def _remember(self, wrapped: bytes, scope: str, cipher: AESGCM) -> None:
        self._opened[wrapped, scope] = cipher
        self._opened.move_to_end((wrapped, scope))
        while len(self._opened) > _DATA_KEYS_KEPT:
            self._opened.popitem(last=False)

    def _decrypt(self, wrapped: bytes, scope: str) -> bytes:
        answer = _call(
            self._client.decrypt,
            KeyId=self._key_id,
            CiphertextBlob=wrapped,
            EncryptionContext={CONTEXT_NAME: scope},
        )
        plain: bytes = answer["Plaintext"]
        if len(plain) != KEY_BYTES:
            raise ConfigurationError(f"KMS unwrapped {len(plain)} bytes, not {KEY_BYTES}")
        return plain


def load_kms_provider(settings: Settings) -> KmsKeyProvider:
    """The provider over AUDIT_KMS_KEY_ID; the MAC key is unwrapped here. Raises as the provider."""
    path = settings.kms_mac_key_file
    if path is None:
        raise ConfigurationError(
            "AUDIT_KMS_MAC_KEY_FILE is not set: name the file that `audit-trail mac-key` wrote"
        )
    try:
        wrapped = b64decode(path.read_bytes().strip(), validate=True)
    except (OSError, Base64Error):
        raise ConfigurationError(
            f"AUDIT_KMS_MAC_KEY_FILE: {path} cannot be read as base64"
        ) from None
    return KmsKeyProvider(connect(settings), settings.kms_key_id, wrapped)


def make_mac_key(settings: Settings, path: Path) -> None:
    """Write a new MAC key, wrapped by KMS, to a file that is not there yet.

    Once per trail: another MAC key would know nobody again.

    Raises:
        ConfigurationError: The file is there, or KMS refuses.
        Unavailable: KMS does not answer.
    """
    if path.exists():
        raise ConfigurationError(f"{path} is there already: a trail has one MAC key for ever")
    answer = _call(
        connect(settings).generate_data_key_without_plaintext,
        KeyId=settings.kms_key_id,
        KeySpec="AES_256",
        EncryptionContext={CONTEXT_NAME: _MAC},
    )
    with path.open("xb") as file:
        file.write(b64encode(answer["CiphertextBlob"]) + b"\n")


def connect(settings: Settings) -> KmsClient:
    """boto3's client with the SDK's own credential chain; nothing is asked of KMS yet."""
    timeout_s = settings.request_timeout_s
    config = Config(
        connect_timeout=min(timeout_s, 3.0),
        read_timeout=timeout_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
    )
    client: KmsClient = boto3.client(
        "kms",
        endpoint_url=settings.kms_endpoint_url or None,
        region_name=settings.kms_region,
        config=config,
    )
    return client


def _scope(context: bytes) -> str:
    """What KMS is told of a context: dead letters share a data key, each tenant has its own.

    All of the context is bound to the wrapped key by AES-GCM in any case.
    """
    kind, _, _rest = context.partition(b":")
    return _DEAD_LETTER if kind == _DEAD_LETTER.encode() else context.decode()


def _call(ask: Any, **request: Any) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = ask(**request)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        where = f"{error.operation_name}: {code}"
        if code in _WRONG_BLOB:
            raise ConfigurationError(
                f"a stored key cannot be unwrapped under AUDIT_KMS_KEY_ID ({where})"
            ) from None
        if code in _WRONG_SETTINGS:
            raise ConfigurationError(f"kms refuses {where} (AUDIT_KMS_KEY_ID)") from None
        raise Unavailable("kms", where) from None
    except (NoCredentialsError, PartialCredentialsError):
        raise ConfigurationError("kms: no credentials in the SDK's credential chain") from None
    except (BotoCoreError, HTTPError, OSError) as error:
        raise Unavailable("kms", failure(error, "AWS_CA_BUNDLE")) from None
    return answer
