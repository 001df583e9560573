"""The key provider: the root that wraps tenant keys and dead letter keys, and keys the MACs.

``LocalKeyProvider`` keeps the root in a file, for development and single hosts; in
``pipeline.keys.kms`` AWS KMS keeps it. Neither sees an event.
"""

from __future__ import annotations

import hmac
import os
import stat
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline.domain.errors import ConfigurationError
from pipeline.settings import Settings

KEY_BYTES = 32
NONCE_BYTES = 12


class KeyProvider(Protocol):
    """Wraps keys under a root that never leaves it.

    ``wrap`` and ``unwrap`` may ask a server, so they are not called on the event loop; they raise
    ``Unavailable`` when it does not answer.
    """

    def wrap(self, plain: bytes, context: bytes) -> bytes:
        """``plain``, encrypted and bound to ``context``."""
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """What ``wrap`` was given.

        Raises:
            ConfigurationError: Wrapped by another root, or for another context.
        """
        ...

    def mac(self, message: bytes) -> bytes:
        """HMAC-SHA-256 (RFC 2104) under a secret of the provider: subject hashes and tombstones."""
        ...


class LocalKeyProvider:
    """A root key of 32 bytes, held in memory; separate keys are derived for wrapping and MACs."""

    def __init__(self, root: bytes) -> None:
        if len(root) != KEY_BYTES:
            raise ConfigurationError(f"the root key has {len(root)} bytes, not {KEY_BYTES}")
        self._wrapping = AESGCM(blake2b(key=root, person=b"wrap", digest_size=KEY_BYTES).digest())
        self._mac_key = blake2b(key=root, person=b"mac", digest_size=KEY_BYTES).digest()

    def wrap(self, plain: bytes, context: bytes) -> bytes:
        return wrap_key(self._wrapping, plain, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        return unwrap_key(self._wrapping, wrapped, context)

    def mac(self, message: bytes) -> bytes:
        return hmac.digest(self._mac_key, message, "sha256")


def wrap_key(under: AESGCM, plain: bytes, context: bytes) -> bytes:
    """nonce (12) ‖ AES-256-GCM(plain; associated data: context): 60 bytes for a 32-byte key."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + under.encrypt(nonce, plain, context)


def unwrap_key(under: AESGCM, wrapped: bytes, context: bytes) -> bytes:
    """What ``wrap_key`` was given.

    Raises:
        ConfigurationError: Wrapped under another key, or for another context.
    """
    try:
        return under.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        raise ConfigurationError(
            "a stored key cannot be unwrapped: the key provider (AUDIT_KEY_FILE, AUDIT_KMS_KEY_ID)"
            " is not the one that wrapped it, or not for this"
        ) from None


def load_provider(settings: Settings) -> KeyProvider:
    """AWS KMS if AUDIT_KMS_KEY_ID is set, else the local provider over AUDIT_KEY_FILE.

    Raises:
        ConfigurationError: The file or KMS does not give the key.
        Unavailable: KMS does not answer.
    """
    if settings.kms_key_id:
        from pipeline.keys.kms import load_kms_provider  # boto3 takes half a second to import

        return load_kms_provider(settings)
    return LocalKeyProvider(read_key_file(settings.key_file, "AUDIT_KEY_FILE"))


def load_seed_provider(settings: Settings) -> KeyProvider:
    """As ``load_provider``, for whoever unwraps seeds and makes no MAC: with KMS it needs the context
    ``signing-key`` alone. Raises alike.
    """
    if settings.kms_key_id:
        from pipeline.keys.kms import KmsKeyProvider, connect

        return KmsKeyProvider(connect(settings), settings.kms_key_id, None)
    return load_provider(settings)


def read_key_file(path: Path | None, setting: str) -> bytes:
    """32 bytes from a file of 64 hex digits that only its owner may read.

    Raises:
        ConfigurationError: Not set, not there, readable by others, or not a key.
    """
    if path is None:
        raise ConfigurationError(f"{setting} is not set: name a file with 64 hex digits")
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{setting}: {path} cannot be read") from error
    if mode & 0o077:
        raise ConfigurationError(f"{setting}: {path} is open to others; run: chmod 600 {path}")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"{setting}: {path} does not hold 64 hex digits")
    return key
