"""What the worker itself sends to Kafka: dead letters and new keys, acknowledged before it goes on.

Idempotent, acks=all. A broker that is down is ``Unavailable``: the caller waits and sends again, so
a record may stand twice; dead letters have an identity and key entries are the same wherever they
stand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from agents.app import tls_context
from agents.kafka_answers import kafka_answers
from pipeline.codec.dead_letter_format import SealedLetter, seal_dead_letter
from pipeline.domain.errors import LetterTooLarge
from pipeline.domain.escrow import EscrowEntry, encode_entries
from pipeline.domain.logs import DEAD_LETTER_TOPIC, KEY_JOURNAL_TOPIC, LogName
from pipeline.domain.records import DeadLetter
from pipeline.settings import Settings

# (letters) → a key for each, in order: made and durable, or the one that an earlier try made.
LetterKeys = Callable[[Sequence[DeadLetter]], Awaitable[Sequence[bytes]]]

_JOURNAL_ENTRIES = 500  # keys in one journal record
_LETTERS_AT_ONCE_BYTES = 8 * 1024 * 1024
_RECORD_ROOM_BYTES = 4_096  # for the key, lengths, and the batch around it


@dataclass(frozen=True, slots=True)
class _Message:
    topic: str
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()
    # Letters of one partition stay together and in order, and a batch of them is one request;
    # a partition by the key's hash would cost more than sealing the letter [measured: 16 us].
    source_partition: int = 0


class WorkerProducer:
    """One producer for both. ``open`` once, then any number of sends, ``close`` once."""

    def __init__(self, settings: Settings, letter_keys: LetterKeys) -> None:
        self._settings = settings
        self._max_bytes = settings.inflate_max_bytes * 3 // 2
        self._letter_keys = letter_keys
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def close(self) -> None:
        """Stop; what was not acknowledged was not promised."""
        if self._producer is not None:
            await self._producer.stop()

    async def dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Seal and publish letters; all are acknowledged on return.

        Raises:
            Unavailable: Publish the same letters again later.
            LetterTooLarge: A letter is larger than any record may be; the log is that of its record.
        """
        part: list[DeadLetter] = []
        part_bytes = 0
        for letter in letters:
            part.append(letter)
            part_bytes += len(letter.record.value or b"")
            if part_bytes >= _LETTERS_AT_ONCE_BYTES:
                await self._publish_letters(part)
                part, part_bytes = [], 0
        if part:
            await self._publish_letters(part)

    async def journal(self, entries: Sequence[EscrowEntry]) -> None:
        """Append new keys to the journal; acknowledged on return.

        Raises:
            Unavailable: Append the same entries again later.
        """
        await self._send(
            [
                _Message(
                    KEY_JOURNAL_TOPIC, None, encode_entries(entries[at : at + _JOURNAL_ENTRIES])
                )
                for at in range(0, len(entries), _JOURNAL_ENTRIES)
            ]
        )

    async def _publish_letters(self, letters: Sequence[DeadLetter]) -> None:
        keys = await self._letter_keys(letters)
        messages = []
        for letter, letter_key in zip(letters, keys, strict=True):
            sealed = seal_dead_letter(letter, letter_key)
            self._check_size(letter, sealed)
            messages.append(
                _Message(
                    DEAD_LETTER_TOPIC, sealed.key, sealed.value, sealed.headers, letter.partition
                )
            )
        await self._send(messages)

    def _check_size(self, letter: DeadLetter, sealed: SealedLetter) -> None:
        """A letter that no broker takes must not look like a broker that is away."""
        size = len(sealed.value) + sum(len(name) + len(value) for name, value in sealed.headers)
        if size > self._max_bytes - _RECORD_ROOM_BYTES:
            raise LetterTooLarge(
                str(LogName(letter.topic, letter.partition, letter.epoch)),
                f"the record at offset {letter.record.offset} is bad ({letter.reason}), and its dead"
                f" letter would have {size} bytes of {self._max_bytes}: its key or headers are too"
                " large to be kept. All before it is stored. Delete the records up to it"
                " (kafka-delete-records), then"
                f" `audit-trail open-epoch {letter.topic} {letter.partition}`",
                offset=letter.record.offset,
            )

    async def _send(self, messages: Sequence[_Message]) -> None:
        with kafka_answers():
            producer = await self._started()
            partitions = {
                topic: sorted(await producer.partitions_for(topic))
                for topic in {message.topic for message in messages}
            }
            futures = [
                await producer.send(
                    message.topic,
                    key=message.key,
                    value=message.value,
                    headers=list(message.headers),
                    partition=_spread(partitions[message.topic], message.source_partition),
                )
                for message in messages
            ]
            await asyncio.gather(*futures)

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = self._new()
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    def _new(self) -> AIOKafkaProducer:
        settings = self._settings
        sasl = settings.kafka_security_protocol.startswith("SASL")
        return AIOKafkaProducer(
            bootstrap_servers=settings.kafka_bootstrap,
            client_id=f"{settings.consumer_group}-worker",
            security_protocol=settings.kafka_security_protocol,
            ssl_context=tls_context(settings),
            sasl_mechanism=settings.kafka_sasl_mechanism if sasl else "PLAIN",
            sasl_plain_username=settings.kafka_username or None,
            sasl_plain_password=settings.kafka_password.get_secret_value() or None,
            acks="all",
            enable_idempotence=True,
            linger_ms=2,
            request_timeout_ms=int(settings.request_timeout_s * 1000),
            # A letter holds a whole record: as large as one may be once inflated, with its headers.
            max_request_size=self._max_bytes,
        )


def _spread(partitions: Sequence[int], source_partition: int) -> int:
    return partitions[source_partition % len(partitions)]
