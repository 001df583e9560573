"""Dead letters: listed without their key, shown and replayed with it.

A letter's identity is its source position. A crash of the worker may leave a letter in the topic
twice; here it is one.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from pipeline.codec.dead_letter_format import (
    LetterId,
    LetterLabel,
    OriginalRecord,
    key_context,
    open_dead_letter,
    read_label,
)
from pipeline.domain.errors import AuditTrailError, ConfigurationError
from pipeline.domain.logs import DEAD_LETTER_TOPIC
from pipeline.entrypoints.cli.kafka import read_topic
from pipeline.entrypoints.cli.output import Row, printable, say
from pipeline.entrypoints.cli.stores import call_keys

if TYPE_CHECKING:
    from confluent_kafka import Message

    from pipeline.keys.provider import KeyProvider
    from pipeline.settings import Settings

KEY_GONE: Final = "its key is gone"
_HEX_LINE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A letter as the topic has it."""

    label: LetterLabel
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant; an empty set means any."""

    reasons: frozenset[str] = field(default_factory=frozenset)
    identities: frozenset[LetterId] = field(default_factory=frozenset)

    def takes(self, label: LetterLabel) -> bool:
        """Whether a letter is meant."""
        return (not self.reasons or label.reason in self.reasons) and (
            not self.identities or label.id in self.identities
        )


def read_letters(settings: Settings) -> Iterator[StoredLetter]:
    """Every letter that the topic holds now, as it comes; repeats included.

    Raises:
        Unavailable: The brokers do not answer.
        ConfigurationError: There is no such topic.

    """
    for message in read_topic(settings, DEAD_LETTER_TOPIC):
        letter = _letter(message)
        if letter is not None:
            yield letter


def select(letters: Iterator[StoredLetter], selection: Selection) -> list[StoredLetter]:
    """The letters that are meant, each once, oldest first."""
    found = {letter.label.id: letter for letter in letters if selection.takes(letter.label)}
    return sorted(found.values(), key=lambda letter: (letter.label.timestamp_ms, letter.label.id))


def letter_rows(letters: Sequence[StoredLetter]) -> list[Row]:
    """For output."""
    return [
        {
            "id": str(letter.label.id),
            "reason": letter.label.reason,
            "detail": letter.label.detail,
            "time": _time(letter.label.timestamp_ms),
            "size_bytes": None if letter.label.value_is_null else letter.label.size_bytes,
        }
        for letter in letters
    ]


def show_letter(settings: Settings, identity: str, out: Path | None) -> None:
    """Write one letter's original value to ``out`` or stdout, and its label to stderr.

    Raises:
        AuditTrailError: There is no such letter, or its key is gone.

    """
    try:
        wanted = LetterId.parse(identity)
    except ValueError as error:
        raise ConfigurationError(f"{identity}: {error}") from None
    provider = _provider(settings)
    letters = select(read_letters(settings), Selection(identities=frozenset({wanted})))
    if not letters:
        raise AuditTrailError(f"no dead letter {wanted}; run: audit-trail dead-letter list")
    letter = letters[0]
    keys = letter_keys(settings, provider, letters)
    if wanted not in keys:
        raise AuditTrailError(f"dead letter {wanted} cannot be opened: {KEY_GONE} (erased)")
    original = _open(letter, keys[wanted])
    _describe(original)
    _write(original.value or b"", out)


def letter_keys(
    settings: Settings, provider: KeyProvider, letters: Sequence[StoredLetter]
) -> dict[LetterId, bytes]:
    """The keys of letters, unwrapped; one that was destroyed is absent.

    Raises:
        Unavailable: The database does not answer.
        ConfigurationError: The key provider is another than the one that wrapped them.

    """
    positions: list[tuple[str, int, int, int]] = [letter.label.id for letter in letters]
    stored = call_keys(settings, lambda store: store.stored_dead_letter_keys(positions))
    return {
        LetterId(*position): provider.unwrap(wrapped, key_context(LetterId(*position)))
        for position, wrapped in stored.items()
    }


def replay(settings: Settings, selection: Selection, *, really: bool) -> list[Row]:
    """Publish the original records of letters to their raw topics again, acknowledged on return.

    Without ``really`` nothing is published: the rows say what would be.

    Raises:
        Unavailable: Some may have been published; doing it again is harmless.

    """
    from pipeline.entrypoints.cli.publishing import Publisher

    provider = _provider(settings) if really else None
    letters = select(read_letters(settings), selection)
    if provider is None:
        return [_outcome(letter, "would be published again") for letter in letters]
    keys = letter_keys(settings, provider, letters)
    rows: list[Row] = []
    with Publisher(settings) as publisher:
        for letter in letters:
            key = keys.get(letter.label.id)
            if key is None:
                rows.append(_outcome(letter, KEY_GONE))
                continue
            original = _open(letter, key)
            publisher.publish(
                letter.label.id.topic,
                key=original.key,
                value=original.value,
                headers=original.headers,
            )
            rows.append(_outcome(letter, "published again"))
    return rows


def _letter(message: Message) -> StoredLetter | None:
    key, value = message.key() or b"", message.value() or b""
    # The client's type allows for more than it ever gives for a fetched record.
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    try:
        return StoredLetter(read_label(key, value, headers), key, value, headers)
    except ValueError as error:
        # Somebody else's record in our topic: said, and passed over.
        place = f"{message.partition()}:{message.offset()}"
        say(f"{DEAD_LETTER_TOPIC}:{place} is skipped: {error}")
        return None


def _open(letter: StoredLetter, key: bytes) -> OriginalRecord:
    try:
        return open_dead_letter(letter.key, letter.value, letter.headers, key)
    except ValueError as error:
        raise AuditTrailError(f"dead letter {letter.label.id}: {error}") from error


def _outcome(letter: StoredLetter, outcome: str) -> Row:
    return {"id": str(letter.label.id), "reason": letter.label.reason, "outcome": outcome}


def _provider(settings: Settings) -> KeyProvider:
    from pipeline.keys.provider import load_provider

    return load_provider(settings)


def _describe(original: OriginalRecord) -> None:
    label = original.label
    say(f"id: {label.id}\nreason: {label.reason} {label.detail}\ntime: {_time(label.timestamp_ms)}")
    say(f"key: {_quoted(original.key)}")
    for name, value in original.headers:
        say(f"header {name}: {_quoted(value)}")
    size = "null" if label.value_is_null else f"{label.size_bytes} bytes"
    say(f"value: {size}")


def _quoted(value: bytes | None) -> str:
    if value is None:
        return "null"
    try:
        return printable(value.decode())
    except UnicodeDecodeError:
        return f"base64 {b64encode(value).decode()}"


def _write(value: bytes, out: Path | None) -> None:
    if out is not None:
        out.touch(mode=0o600)
        out.write_bytes(value)
    elif sys.stdout.isatty():
        # Raw bytes could act on the terminal.
        for start in range(0, len(value), _HEX_LINE_BYTES):
            line = value[start : start + _HEX_LINE_BYTES]
            text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
            sys.stdout.write(f"{start:08x}  {line.hex(' '):<47}  {text}\n")
    else:
        sys.stdout.buffer.write(value)
        sys.stdout.flush()


def _time(timestamp_ms: int) -> str:
    if timestamp_ms < 0:
        return "unknown"
    moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
