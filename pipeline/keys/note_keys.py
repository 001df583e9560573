"""Keys that sign and verify notes: Ed25519 (RFC 8032), as C2SP signed-note and tlog-cosignature use it."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pipeline.domain.notes import (
    ED25519,
    ED25519_COSIGNATURE,
    Note,
    NoteRefused,
    Signature,
    VerifierKey,
    is_key_name,
    signed_by,
)

SEED_BYTES = 32
_TIMESTAMP = struct.Struct("!Q")


class NoteSigner:
    """A private key with its name; ``seed`` is the 32 bytes of RFC 8032 §5.1.5."""

    def __init__(self, name: str, seed: bytes) -> None:
        if not is_key_name(name):
            raise ValueError("a key's name has no space and no plus")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        public_key = self._key.public_key().public_bytes_raw()
        self.verifier = VerifierKey(name, ED25519, public_key)

    def sign(self, text: str) -> Signature:
        """The signature line of a note with this text."""
        return Signature(self.verifier.name, self.verifier.key_id, self._key.sign(text.encode()))


class Cosigner:
    """A witness's key: signs that it saw a checkpoint at a time (C2SP tlog-cosignature)."""

    def __init__(self, name: str, seed: bytes) -> None:
        if not is_key_name(name):
            raise ValueError("a key's name has no space and no plus")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        public_key = self._key.public_key().public_bytes_raw()
        self.verifier = VerifierKey(name, ED25519_COSIGNATURE, public_key)

    def cosign(self, text: str, *, at_s: int) -> Signature:
        """The cosignature line; ``at_s``: seconds since 1970."""
        signature = self._key.sign(_cosigned(text, at_s))
        key = self.verifier
        return Signature(key.name, key.key_id, _TIMESTAMP.pack(at_s) + signature)


def sign_note(text: str, signers: Sequence[NoteSigner]) -> Note:
    """The text with a signature of each."""
    return Note(text, tuple(signer.sign(text) for signer in signers))


def verify_note(note: Note, keys: Sequence[VerifierKey]) -> list[VerifierKey]:
    """The keys, of those that are trusted, by which the note is signed: one at least. Signatures of other
    keys are passed over.

    Raises:
        NoteRefused: No trusted key signed it, or a signature that says it is one's is not.
    """
    found = []
    for key, signature in signed_by(note, keys):
        if not _holds(key, note.text, signature):
            raise NoteRefused(f"the signature of {key.name} is not of this text")
        found.append(key)
    if not found:
        raise NoteRefused("no trusted key signed this note")
    return found


def _holds(key: VerifierKey, text: str, signature: Signature) -> bool:
    message, signed = text.encode(), signature.signature
    if key.algorithm == ED25519_COSIGNATURE:
        stamp, signed = signed[: _TIMESTAMP.size], signed[_TIMESTAMP.size :]
        if len(stamp) != _TIMESTAMP.size:
            return False
        message = _cosigned(text, _TIMESTAMP.unpack(stamp)[0])
    elif key.algorithm != ED25519:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signed, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _cosigned(text: str, at_s: int) -> bytes:
    return f"cosignature/v1\ntime {at_s}\n{text}".encode()
