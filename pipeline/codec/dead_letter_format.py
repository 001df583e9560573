"""The dead letter record: a raw record's original bytes, encrypted, with the reason in headers.

Its identity is the source position (topic, partition, offset, and the epoch of the log if that is
not 1: a replaced topic has the same offsets again), which is also its Kafka key, so a letter that is
written twice is one letter. Value, key and headers of the original are encrypted
under a random key of this letter alone (table ``dead_letter_key``): without that key nothing of
the original can be read. What is clear: reason, source position, broker time, size.

    key      b"topic:partition:offset", or b"topic:partition:offset:epoch"
    value    nonce (12) ‖ AES-256-GCM(original value; nothing if it was empty or null)
    headers  audit-reason, audit-detail, audit-source-topic, audit-source-partition,
             audit-source-offset, audit-source-epoch, audit-source-timestamp-ms,
             audit-original, audit-null-value = "1" if the original value was null

``audit-original`` is nonce ‖ AES-256-GCM(canonical JSON {"headers": [[name, base64|null], …],
"key": base64|null}). Associated data: the Kafka key, then one byte for the purpose (0x00 value,
0x01 original), so that neither can be moved to another letter or into the other's place.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline.domain.canonical import canonical_json
from pipeline.domain.logs import FIRST_EPOCH
from pipeline.domain.records import DeadLetter

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16

REASON: Final = "audit-reason"
DETAIL: Final = "audit-detail"
SOURCE_TOPIC: Final = "audit-source-topic"
SOURCE_PARTITION: Final = "audit-source-partition"
SOURCE_OFFSET: Final = "audit-source-offset"
SOURCE_EPOCH: Final = "audit-source-epoch"
SOURCE_TIMESTAMP: Final = "audit-source-timestamp-ms"
ORIGINAL: Final = "audit-original"
NULL_VALUE: Final = "audit-null-value"

_VALUE_PURPOSE: Final = b"\x00"
_ORIGINAL_PURPOSE: Final = b"\x01"


class LetterId(NamedTuple):
    """Where the original stood; ``str`` gives the identity that people type."""

    topic: str
    partition: int
    offset: int
    epoch: int = FIRST_EPOCH

    def __str__(self) -> str:
        position = f"{self.topic}:{self.partition}:{self.offset}"
        return position if self.epoch == FIRST_EPOCH else f"{position}:{self.epoch}"

    @classmethod
    def parse(cls, text: str) -> LetterId:
        """Read back what ``str`` gave.

        Raises:
            ValueError: The text is no ``topic:partition:offset`` or ``…:epoch``.
        """
        topic, *numbers = text.split(":")  # which no topic's name holds
        if not topic or len(numbers) not in (2, 3) or not all(map(str.isdecimal, numbers)):
            raise ValueError("expected topic:partition:offset, and :epoch if it is not 1")
        identity = cls(topic, *map(int, numbers))
        if str(identity) != text:
            raise ValueError("expected numbers without leading zeros, and no epoch 1")
        return identity


class SealedLetter(NamedTuple):
    """What is produced to the dead letter topic."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class LetterLabel:
    """What a letter says of itself without its key."""

    id: LetterId
    reason: str
    detail: str
    timestamp_ms: int
    value_is_null: bool
    size_bytes: int  # of the original value


@dataclass(frozen=True, slots=True)
class OriginalRecord:
    """The raw record as it was: what ``replay`` produces again."""

    label: LetterLabel
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def letter_id(letter: DeadLetter) -> LetterId:
    """The identity of a letter: its source position."""
    return LetterId(letter.topic, letter.partition, letter.record.offset, letter.epoch)


def key_context(identity: LetterId) -> bytes:
    """What a letter's key is bound to when the key provider wraps it."""
    return f"dead-letter:{identity}".encode()


def seal_dead_letter(
    letter: DeadLetter, key: bytes, *, random_bytes: Callable[[int], bytes] = os.urandom
) -> SealedLetter:
    """The Kafka record of a letter under its own 32-byte ``key``; a fresh nonce at every call."""
    identity = letter_id(letter)
    name = str(identity).encode()
    record = letter.record
    cipher = AESGCM(key)
    original = canonical_json(
        {
            "key": None if record.key is None else b64encode(record.key).decode(),
            "headers": [[header, _to_text(value)] for header, value in record.headers],
        }
    )
    headers = [
        (REASON, letter.reason.value.encode()),
        (DETAIL, letter.detail.encode()),
        (SOURCE_TOPIC, identity.topic.encode()),
        (SOURCE_PARTITION, str(identity.partition).encode()),
        (SOURCE_OFFSET, str(identity.offset).encode()),
        (SOURCE_EPOCH, str(identity.epoch).encode()),
        (SOURCE_TIMESTAMP, str(record.timestamp).encode()),
        (ORIGINAL, _encrypt(cipher, original, name + _ORIGINAL_PURPOSE, random_bytes)),
    ]
    if record.value is None:
        headers.append((NULL_VALUE, b"1"))
    value = _encrypt(cipher, record.value or b"", name + _VALUE_PURPOSE, random_bytes)
    return SealedLetter(name, value, headers)


def read_label(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
) -> LetterLabel:
    """What a record of the dead letter topic says without its key.

    Raises:
        ValueError: It is not a dead letter of this format.
    """
    by_name = {name: content for name, content in headers if content is not None}
    try:
        identity = LetterId(
            by_name[SOURCE_TOPIC].decode(),
            int(by_name[SOURCE_PARTITION]),
            int(by_name[SOURCE_OFFSET]),
            int(by_name.get(SOURCE_EPOCH, b"%d" % FIRST_EPOCH)),  # letters before 0.1.0 have none
        )
        label = LetterLabel(
            id=identity,
            reason=by_name[REASON].decode(),
            detail=by_name.get(DETAIL, b"").decode(),
            timestamp_ms=int(by_name[SOURCE_TIMESTAMP]),
            value_is_null=by_name.get(NULL_VALUE) == b"1",
            size_bytes=len(value or b"") - NONCE_BYTES - _TAG_BYTES,
        )
    except (KeyError, ValueError):
        # ``from None``: what could not be parsed may be anybody's bytes.
        raise ValueError("not a dead letter: a header is missing or malformed") from None
    if key != str(identity).encode():
        raise ValueError("not a dead letter: its key is not its source position")
    if label.size_bytes < 0:
        raise ValueError("not a dead letter: its value is shorter than a nonce and a tag")
    return label


def open_dead_letter(
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    letter_key: bytes,
) -> OriginalRecord:
    """The original record of a letter.

    Raises:
        ValueError: It is no dead letter, was changed, or ``letter_key`` is another letter's.
    """
    label = read_label(key, value, headers)
    name = str(label.id).encode()
    cipher = AESGCM(letter_key)
    sealed_original = dict(headers).get(ORIGINAL) or b""
    try:
        content = _decrypt(cipher, value or b"", name + _VALUE_PURPOSE)
        original = json.loads(_decrypt(cipher, sealed_original, name + _ORIGINAL_PURPOSE))
    except InvalidTag:
        raise ValueError("the letter does not open: changed, or under another key") from None
    return OriginalRecord(
        label=label,
        key=_to_bytes(original["key"]),
        value=None if label.value_is_null else content,
        headers=[(header, _to_bytes(text)) for header, text in original["headers"]],
    )


def _encrypt(
    cipher: AESGCM, plain: bytes, context: bytes, random_bytes: Callable[[int], bytes]
) -> bytes:
    nonce = random_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, context)


def _decrypt(cipher: AESGCM, sealed: bytes, context: bytes) -> bytes:
    if len(sealed) < NONCE_BYTES + _TAG_BYTES:
        raise InvalidTag
    return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)


def _to_text(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()


def _to_bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
