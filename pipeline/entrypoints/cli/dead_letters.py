"""Dead letters: listed without their key, shown and replayed with it.

A letter's identity is its source position. A crash of the worker may leave a letter in the topic
twice; here it is one. A letter may be as large as a batch may inflate, and they are kept for 30 days:
labels are held for all of them, what they keep for ``_AT_ONCE_BYTES`` of them.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
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
_AT_ONCE_BYTES: Final = 64 * 1024 * 1024  # a letter that is larger is read alone
_HEX_LINE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """What a letter says of itself, and where the topic has it; ``sealed_bytes`` is its size there."""

    label: LetterLabel
    partition: int
    offset: int
    sealed_bytes: int


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
    """Every letter that the topic holds now, as it comes; repeats included. Nothing of what they keep.

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
    keys = letter_keys(settings, provider, letters)
    ((_, original),) = originals(settings, letters, keys)
    if original is None:
        raise AuditTrailError(f"dead letter {wanted} cannot be opened: {KEY_GONE} (erased)")
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
        for piece in pieces(letters):
            for letter, original in originals(settings, piece, keys):
                if original is None:
                    rows.append(_outcome(letter, KEY_GONE))
                    continue
                publisher.publish(
                    letter.label.id.topic,
                    key=original.key,
                    value=original.value,
                    headers=original.headers,
                )
                rows.append(_outcome(letter, "published again"))
            publisher.flush()
    return rows


def pieces(letters: Sequence[StoredLetter]) -> Iterator[list[StoredLetter]]:
    """The letters in their order, so many at once as may be in memory."""
    piece: list[StoredLetter] = []
    size_bytes = 0
    for letter in letters:
        if piece and size_bytes + letter.sealed_bytes > _AT_ONCE_BYTES:
            yield piece
            piece, size_bytes = [], 0
        piece.append(letter)
        size_bytes += letter.sealed_bytes
    if piece:
        yield piece


def originals(
    settings: Settings, piece: Sequence[StoredLetter], keys: Mapping[LetterId, bytes]
) -> Iterator[tuple[StoredLetter, OriginalRecord | None]]:
    """Each letter of a piece with the record that it keeps; None: its key is gone.

    Raises:
        Unavailable: The brokers do not answer.
        AuditTrailError: A letter is no longer in the topic, or does not open.
    """
    sealed = _sealed(settings, [letter for letter in piece if letter.label.id in keys])
    for letter in piece:
        key = keys.get(letter.label.id)
        if key is None:
            yield letter, None
            continue
        message = sealed.pop((letter.partition, letter.offset), None)
        if message is None:
            raise AuditTrailError(f"dead letter {letter.label.id} is no longer in its topic")
        try:
            yield letter, open_dead_letter(message.key(), message.value(), _headers(message), key)
        except ValueError as error:
            raise AuditTrailError(f"dead letter {letter.label.id}: {error}") from error


def _sealed(settings: Settings, letters: Sequence[StoredLetter]) -> dict[tuple[int, int], Message]:
    """What the topic has at the letters' places."""
    ranges: dict[int, tuple[int, int]] = {}
    for one in letters:
        first, end = ranges.get(one.partition, (one.offset, 0))
        ranges[one.partition] = min(first, one.offset), max(end, one.offset + 1)
    if not ranges:
        return {}
    wanted = {(one.partition, one.offset) for one in letters}
    messages = read_topic(settings, DEAD_LETTER_TOPIC, ranges)
    return {place: one for one in messages if (place := _place(one)) in wanted}


def _letter(message: Message) -> StoredLetter | None:
    value, headers = message.value() or b"", _headers(message)
    partition, offset = _place(message)
    size_bytes = len(value) + sum(len(content or b"") for _, content in headers)
    try:
        label = read_label(message.key(), value, headers)
    except ValueError as error:
        # Somebody else's record in our topic: said, and passed over.
        say(f"{DEAD_LETTER_TOPIC}:{partition}:{offset} is skipped: {error}")
        return None
    return StoredLetter(label, partition, offset, size_bytes)


def _place(message: Message) -> tuple[int, int]:
    return message.partition() or 0, message.offset() or 0


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    # The client's type allows for more than it ever gives for a fetched record.
    return cast("list[tuple[str, bytes | None]]", message.headers() or [])


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
