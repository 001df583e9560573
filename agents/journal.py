"""Reading the key journal back: after a database rollback its keys are found here.

The journal holds every new key from before the ledger transaction that first used it. A marker in
the database (a position of the reader ``key-journal``) says up to where its entries are known to be
in ``audit_user``; it is rolled back with the database, so reading on from it finds what was lost.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.app import tls_context
from agents.kafka_answers import kafka_answers
from pipeline.domain.escrow import EscrowEntry, journal_entries
from pipeline.domain.logs import KEY_JOURNAL_TOPIC
from pipeline.logging import log_event
from pipeline.settings import Settings

log = logging.getLogger(__name__)

_POLL_MS = 500


async def read_journal(
    settings: Settings, from_offset: int
) -> AsyncIterator[tuple[int, list[EscrowEntry]]]:
    """(offset after a record, its entries) from an offset on, up to the end as it is now. A record that
    is none of the trail's is logged (``journal_record_foreign``) and has no entries.

    Raises:
        ConfigurationError: A record holds keys in a form of another release.
        Unavailable: The broker does not answer; read again later.
    """
    async for position, record in read_single_partition(settings, KEY_JOURNAL_TOPIC, from_offset):
        if record is None:
            yield position, []
        else:
            place = f"{KEY_JOURNAL_TOPIC}:{record.partition}:{record.offset}"
            yield position, journal_entries(record.value, place, _foreign)


async def read_single_partition(
    settings: Settings, topic: str, from_offset: int = 0
) -> AsyncIterator[tuple[int, Any]]:
    """(offset after a record, the record) of a topic of one partition, from an offset on, up to the end
    as it is now; the last one without a record, if the end holds none.

    Raises:
        Unavailable: The broker does not answer; read again later.
    """
    sasl = settings.kafka_security_protocol.startswith("SASL")
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        security_protocol=settings.kafka_security_protocol,
        ssl_context=tls_context(settings),
        sasl_mechanism=settings.kafka_sasl_mechanism if sasl else "PLAIN",
        sasl_plain_username=settings.kafka_username or None,
        sasl_plain_password=settings.kafka_password.get_secret_value() or None,
        enable_auto_commit=False,
        request_timeout_ms=int(settings.request_timeout_s * 1000),
    )
    try:
        with kafka_answers():
            await consumer.start()
            consumer.assign([partition])
            first = (await consumer.beginning_offsets([partition]))[partition]
            end = (await consumer.end_offsets([partition]))[partition]
        position = max(first, min(from_offset, end))
        consumer.seek(partition, position)
        while position < end:
            with kafka_answers():
                fetched = await consumer.getmany(partition, timeout_ms=_POLL_MS)
            for record in fetched.get(partition, ()):
                position = record.offset + 1
                yield position, record
            with kafka_answers():
                reached = await consumer.position(partition)
            if reached > position:
                position = reached
                yield position, None
    finally:
        await consumer.stop()


def _foreign(place: str) -> None:
    log_event(log, "journal_record_foreign", level=logging.ERROR, place=place)
