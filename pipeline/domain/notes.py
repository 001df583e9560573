"""Signed notes: a text and signatures under it, as checkpoints travel. Text only: no key is here.

Source: C2SP signed-note.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

ED25519 = 0x01
ED25519_COSIGNATURE = 0x04  # a witness's: over a time and the text
KEY_ID_BYTES = 4
SIGNATURES_MAX = 64
NOTE_MAX_BYTES = 64 * 1024

_DASH = "\N{EM DASH}"


class NoteRefused(ValueError):
    """Not a signed note, or one that no trusted key signed. The message says which."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line. ``signature`` is what follows the key id, in its type's own form."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """The line, with its end."""
        return f"{_DASH} {self.name} {b64encode(self.key_id + self.signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, its last line end included, and the signatures under it."""

    text: str
    signatures: tuple[Signature, ...] = ()

    def encode(self) -> bytes:
        """The note as it is stored and served."""
        lines = "".join(signature.line for signature in self.signatures)
        return f"{self.text}\n{lines}".encode()


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name, as it is handed to whoever verifies."""

    name: str
    algorithm: int
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The first 4 bytes of SHA-256 over name, line end, type and key."""
        return key_id(self.name, self.algorithm, self.public_key)

    def __str__(self) -> str:
        """``<name>+<key id, hexadecimal>+<base64 of type and key>``."""
        key = b64encode(bytes((self.algorithm,)) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read back what ``str`` gave.

        Raises:
            NoteRefused: Not a verifier key, or its key id is another key's.
        """
        name, first, rest = text.strip().partition("+")
        key_hex, second, encoded = rest.partition("+")
        try:
            decoded = b64decode(encoded, validate=True)
            key = cls(name, decoded[0], decoded[1:])
        except (ValueError, IndexError):
            decoded, key = b"", cls("", 0, b"")
        if not (first and second and is_key_name(name) and decoded):
            raise NoteRefused("not a verifier key: <name>+<key id>+<base64 of type and key>")
        if key.key_id.hex() != key_hex:
            raise NoteRefused(f"the verifier key {name} has another key id than its key")
        return key


def key_id(name: str, algorithm: int, public_key: bytes) -> bytes:
    """As ``VerifierKey.key_id``."""
    return sha256(name.encode() + b"\n" + bytes((algorithm,)) + public_key).digest()[:KEY_ID_BYTES]


def is_key_name(name: str) -> bool:
    """Whether a key may be called so: something, without space or plus."""
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


def parse_note(encoded: bytes) -> Note:
    """Text and signature lines; which of them hold is asked of ``pipeline.keys.note_keys``.

    Raises:
        NoteRefused: Not a signed note.
    """
    if len(encoded) > NOTE_MAX_BYTES:
        raise NoteRefused(f"a note is at most {NOTE_MAX_BYTES} bytes")
    try:
        whole = encoded.decode()
    except UnicodeDecodeError:
        raise NoteRefused("a note is UTF-8") from None
    if any(ord(character) < 0x20 and character != "\n" for character in whole):
        raise NoteRefused("a note has no control characters")
    text, blank, lines = whole.rpartition("\n\n")
    if not blank or not lines.endswith("\n"):
        raise NoteRefused("a note is a text, an empty line, and signature lines")
    signatures = [_signature(line) for line in lines[:-1].split("\n")]
    if len(signatures) > SIGNATURES_MAX:
        raise NoteRefused(f"a note has at most {SIGNATURES_MAX} signatures")
    return Note(f"{text}\n", tuple(signatures))


def signed_by(note: Note, keys: Sequence[VerifierKey]) -> list[tuple[VerifierKey, Signature]]:
    """Signatures that say they are of these keys; not verified."""
    known = {(key.name, key.key_id): key for key in keys}
    return [
        (known[signature.name, signature.key_id], signature)
        for signature in note.signatures
        if (signature.name, signature.key_id) in known
    ]


def _signature(line: str) -> Signature:
    parts = line.split(" ")
    if len(parts) == 3 and parts[0] == _DASH and is_key_name(parts[1]):
        try:
            decoded = b64decode(parts[2], validate=True)
        except ValueError:
            decoded = b""
        # One way to write it (RFC 4648 §3.5): a note whose bytes were changed is another note.
        if len(decoded) > KEY_ID_BYTES and b64encode(decoded).decode() == parts[2]:
            return Signature(parts[1], decoded[:KEY_ID_BYTES], decoded[KEY_ID_BYTES:])
    raise NoteRefused("a signature line is: dash, key name, base64 of key id and signature")
