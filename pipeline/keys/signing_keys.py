"""The trail's signing keys: Ed25519 seeds, wrapped by the key provider, in one JSON file.

Every key that is not retired signs each checkpoint, so that a new one can be handed out and trusted
before the old one ends. A retired key stays in the file: what it signed still has to verify.
"""

from __future__ import annotations

import json
import os
import stat
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.domain.errors import ConfigurationError
from pipeline.domain.notes import NoteRefused, VerifierKey
from pipeline.keys.note_keys import SEED_BYTES, NoteSigner
from pipeline.keys.provider import KeyProvider

FORMAT_VERSION = 1
SETTING = "AUDIT_SIGNING_KEY_FILE"
KEYS_MAX = 32  # of one file; a note has at most 64 signatures, witnesses' too
TRUSTED_MAX_BYTES = 64 * 1024
_CONTEXT = b"signing-key"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key as the file has it. ``retired_at`` is None while it signs."""

    verifier: VerifierKey
    wrapped_seed: bytes
    made_at: datetime
    retired_at: datetime | None = None


def make_key(provider: KeyProvider, name: str, *, now: datetime) -> SigningKey:
    """A new random key. May ask the provider's server: not for the event loop.

    Raises:
        ConfigurationError: No key may have this name.
        Unavailable: The provider does not answer.
    """
    seed = os.urandom(SEED_BYTES)
    try:
        verifier = NoteSigner(name, seed).verifier
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    return SigningKey(verifier, provider.wrap(seed, _CONTEXT), now)


def open_signer(provider: KeyProvider, key: SigningKey) -> NoteSigner:
    """The key, unwrapped. May ask the provider's server: not for the event loop.

    Raises:
        ConfigurationError: Wrapped by another provider, or not the key that the file says.
        Unavailable: The provider does not answer.
    """
    signer = NoteSigner(key.verifier.name, provider.unwrap(key.wrapped_seed, _CONTEXT))
    if signer.verifier != key.verifier:
        raise ConfigurationError(f"{SETTING}: the seed of {key.verifier} is another key's")
    return signer


def active_keys(keys: Sequence[SigningKey]) -> list[SigningKey]:
    """Those that sign."""
    return [key for key in keys if key.retired_at is None]


def add_key(path: Path, key: SigningKey) -> None:
    """Append a key to the file, made if it is not there; durable on return.

    Raises:
        ConfigurationError: The file cannot be read or written, or is full.
    """
    keys = read_keys(path) if path.exists() else []
    if len(keys) >= KEYS_MAX:
        raise ConfigurationError(f"{SETTING}: {path} holds {KEYS_MAX} keys, the most that it may")
    _write(path, [*keys, key])


def retire_key(path: Path, key_id: str, *, now: datetime) -> SigningKey:
    """Let a key sign no more; durable on return. One that is retired stays as it is.

    Raises:
        ConfigurationError: No such key, or the last one that signs.
    """
    keys = read_keys(path)
    found = [key for key in keys if key.verifier.key_id.hex() == key_id]
    if not found:
        raise ConfigurationError(f"{path} has no key {key_id}; see: audit-trail signing-key list")
    (key,) = found
    if key.retired_at is not None:
        return key
    if active_keys(keys) == [key]:
        raise ConfigurationError(
            f"{key_id} is the last key that signs; first run: audit-trail signing-key create"
        )
    retired = replace(key, retired_at=now)
    _write(path, [retired if one is key else one for one in keys])
    return retired


def read_keys(path: Path | None) -> list[SigningKey]:
    """Every key of the file, in the order in which they were made.

    Raises:
        ConfigurationError: Not set, not there, readable by others, or not such a file.
    """
    if path is None:
        raise ConfigurationError(f"{SETTING} is not set: name a file for the signing keys")
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(
            f"{SETTING}: {path} cannot be read; run: audit-trail signing-key create"
        ) from None
    if mode & 0o077:
        raise ConfigurationError(f"{SETTING}: {path} is open to others; run: chmod 600 {path}")
    try:
        found = json.loads(text)
        if found["v"] != FORMAT_VERSION:
            raise ConfigurationError(f"{SETTING}: {path} is of another release")
        keys = [_decode(entry) for entry in found["keys"]]
    except (KeyError, TypeError, ValueError, NoteRefused):
        raise ConfigurationError(f"{SETTING}: {path} holds no signing keys") from None
    if len({key.verifier.key_id for key in keys}) != len(keys):
        raise ConfigurationError(f"{SETTING}: two keys of {path} have one id")
    return keys


def parse_verifier_keys(lines: Sequence[str]) -> list[VerifierKey]:
    """Verifier keys, one a line; empty lines and those that begin with ``#`` are passed over.

    Raises:
        ConfigurationError: A line is no verifier key; names its number.
    """
    keys = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                keys.append(VerifierKey.parse(line))
            except NoteRefused as error:
                raise ConfigurationError(f"line {number}: {error}") from None
    return keys


def trusted_keys(given: Sequence[str], keys_file: Path | None) -> list[VerifierKey]:
    """The keys that are trusted to have signed: those given, else those of AUDIT_VERIFIER_KEYS_FILE.

    Raises:
        ConfigurationError: None at all, or one that cannot be read.
    """
    if given:
        keys = parse_verifier_keys(given)
    elif keys_file is None:
        raise ConfigurationError(
            "no key is trusted: give --key VKEY, or set AUDIT_VERIFIER_KEYS_FILE"
            " (`audit-trail signing-key list` prints them)"
        )
    else:
        try:
            with keys_file.open(encoding="utf-8") as file:
                text = file.read(TRUSTED_MAX_BYTES)
            keys = parse_verifier_keys(text.splitlines())
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(
                f"AUDIT_VERIFIER_KEYS_FILE: {keys_file} cannot be read"
            ) from None
        except ConfigurationError as error:
            raise ConfigurationError(f"AUDIT_VERIFIER_KEYS_FILE: {keys_file}, {error}") from None
    if not keys:
        raise ConfigurationError("no key is trusted: the list of verifier keys is empty")
    return keys


def _decode(entry: dict[str, Any]) -> SigningKey:
    retired_at = entry["retired_at"]
    return SigningKey(
        VerifierKey.parse(entry["vkey"]),
        b64decode(entry["wrapped_seed"], validate=True),
        datetime.fromisoformat(entry["made_at"]),
        None if retired_at is None else datetime.fromisoformat(retired_at),
    )


def _encode(key: SigningKey) -> dict[str, Any]:
    return {
        "vkey": str(key.verifier),
        "made_at": _time(key.made_at),
        "retired_at": None if key.retired_at is None else _time(key.retired_at),
        "wrapped_seed": b64encode(key.wrapped_seed).decode(),
    }


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")


def _write(path: Path, keys: Sequence[SigningKey]) -> None:
    """Never seen half-written; of two who write at once, one is refused."""
    text = json.dumps({"v": FORMAT_VERSION, "keys": [_encode(key) for key in keys]}, indent=2)
    partial = path.with_name(f".{path.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigurationError(
            f"{partial} is there: another command writes, or one was interrupted; then remove it"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"{SETTING}: {path} cannot be written ({os.strerror(error.errno or 0)})"
        ) from None
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
