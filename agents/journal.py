"""Reading the key journal back: after a database rollback its keys are found here.

The journal holds every new key from before the ledger transaction that first used it. A marker in
the database (a position of the reader ``key-journal``) says up to where its entries are known to be
in ``audit_user``; it is rolled back with the database, so reading on from it finds what was lost.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.app import tls_context
from agents.kafka_answers import kafka_answers
from pipeline.domain.escrow import EscrowEntry, journal_entries
from pipeline.domain.logs import KEY_JOURNAL_TOPIC
from pipeline.logging import log_event
from pipeline.settings import Settings

log = logging.getLogger(__name__)

_POLL_MS = 500
_PARTITION = TopicPartition(KEY_JOURNAL_TOPIC, 0)


async def read_journal(
    settings: Settings, from_offset: int
) -> AsyncIterator[tuple[int, list[EscrowEntry]]]:
    """(offset after a record, its entries) from an offset on, up to the end as it is now. A record that
    is none of the trail's is logged (``journal_record_foreign``) and has no entries.

    Raises:
        ConfigurationError: A record holds keys in a form of another release.
        Unavailable: The broker does not answer; read again later.
    """
    sasl = settings.kafka_security_protocol.startswith("SASL")
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
            consumer.assign([_PARTITION])
            first = (await consumer.beginning_offsets([_PARTITION]))[_PARTITION]
            end = (await consumer.end_offsets([_PARTITION]))[_PARTITION]
        position = max(first, min(from_offset, end))
        consumer.seek(_PARTITION, position)
        while position < end:
            with kafka_answers():
                fetched = await consumer.getmany(_PARTITION, timeout_ms=_POLL_MS)
            for record in fetched.get(_PARTITION, ()):
                position = record.offset + 1
                place = f"{KEY_JOURNAL_TOPIC}:{record.partition}:{record.offset}"
                yield position, journal_entries(record.value, place, _foreign)
            with kafka_answers():
                position = max(position, await consumer.position(_PARTITION))
    finally:
        await consumer.stop()


def _foreign(place: str) -> None:
    log_event(log, "journal_record_foreign", level=logging.ERROR, place=place)
