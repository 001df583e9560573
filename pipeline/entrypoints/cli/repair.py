"""After a disaster: a new epoch for a replaced topic, and a restore after a database rollback.

Both are a person's decision. Both may be repeated.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pipeline.domain.errors import ConfigurationError
from pipeline.domain.escrow import journal_entries
from pipeline.domain.logs import KEY_JOURNAL_TOPIC, LogName
from pipeline.domain.records import LogHead
from pipeline.entrypoints.cli.kafka import (
    admin_client,
    kafka_errors,
    read_topic,
    reader,
    watermarks,
)
from pipeline.entrypoints.cli.output import Row, progress, say
from pipeline.entrypoints.cli.pauses import require_raw
from pipeline.entrypoints.cli.stores import archive_reader, call_keys, call_operations, object_store
from sinks.ledger import PostgresLedger
from sinks.operations import HeadRow, Operations
from sinks.restore import restore_keys, restore_log
from sinks.vault import Vault

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from sinks.archive_reader import ArchiveReader
    from sinks.subject_store import SubjectStore


def topic_identity(settings: Settings, topic: str) -> tuple[str, str]:
    """Cluster id and topic id, as the log's head remembers them.

    Raises:
        ConfigurationError: There is no such topic.
        Unavailable: The brokers do not answer.

    """
    from confluent_kafka import TopicCollection

    admin = admin_client(settings)
    timeout_s = settings.request_timeout_s
    with kafka_errors(f"topic {topic}", admin):
        cluster = admin.describe_cluster(request_timeout=timeout_s).result()
        found: Any = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)
        return str(cluster.cluster_id), str(found[topic].result().topic_id)


def open_epoch(settings: Settings, topic: str, partition: int) -> LogHead:
    """The head of a new log for a topic-partition whose topic was replaced, or lost records that
    the ledger was still to read; at the topic's first offset, or where the archive says that this
    log began before the database was rolled back. Durable on return; where topic and ledger agree,
    nothing changes.

    Raises:
        ConfigurationError: No such topic.
        Unavailable: A server does not answer.

    """
    require_raw(topic)
    cluster_id, topic_id = topic_identity(settings, topic)
    consumer = reader(settings)
    try:
        marks = watermarks(consumer, topic, timeout_s=settings.request_timeout_s)
    finally:
        consumer.close()
    if partition not in marks:
        raise ConfigurationError(f"{topic} has no partition {partition}")
    first_offset, end_offset = marks[partition]

    heads = call_operations(settings, lambda operations: operations.heads())
    epochs = [
        row.name.epoch
        for row in heads
        if (row.name.topic, row.name.partition) == (topic, partition)
    ]
    following = LogName(topic, partition, max(epochs, default=0) + 1)

    async def open_it() -> LogHead:
        async with object_store(settings) as objects:
            archived = await archive_reader(settings, objects).first_offset(following)
        ledger = _ledger(settings)
        await ledger.open()
        try:
            return await ledger.open_epoch(
                topic,
                partition,
                cluster_id=cluster_id,
                topic_id=topic_id,
                first_offset=first_offset,
                end_offset=end_offset,
                begins_at=archived,
            )
        finally:
            await ledger.close()

    return asyncio.run(open_it())


def restore(settings: Settings, log: str) -> list[Row]:
    """Keys from vault and journal, then leaves from the archive; a row per log.

    Workers must be stopped. On return every log is at least where the archive is.

    Raises:
        ChainBroken: Archive and ledger contradict each other.
        Unavailable: A server does not answer; run it again.

    """
    rows: list[Row] = []

    async def restore_all(store: SubjectStore) -> None:
        ledger = _ledger(settings)
        await ledger.open()
        try:
            async with object_store(settings) as objects:
                vault = Vault(objects, settings.s3_vault_bucket)
                say(f"keys from the vault: {await restore_keys(vault, store)}")
                say(f"keys from the journal: {await _restore_journal(settings, store)}")
                reader = archive_reader(settings, objects)
                for name in await _adopt(settings, ledger, reader):
                    say(f"log {name} was known to the archive alone")
                wanted = [head for head in await _heads(settings) if log in ("", str(head.name))]
                if not wanted:
                    raise ConfigurationError(f"no such log: {log or '(there is none)'}")
                with progress("leaves from the archive", None) as done:
                    for head in wanted:
                        now = await ledger.head(head.log_id)
                        after = await restore_log(ledger, reader, now, on_leaves=done.advance)
                        rows.append(_row(head.name, now, after))
        finally:
            await ledger.close()

    call_keys(settings, restore_all)
    _bring_back(settings)
    return rows


async def _adopt(
    settings: Settings, ledger: PostgresLedger, reader: ArchiveReader
) -> list[LogName]:
    """Heads for logs that only the archive knows, such as all of them after the loss of the database.

    The newest epoch of a partition is the topic's as it is now; an earlier one's topic is gone.
    """
    known = {head.name for head in await _heads(settings)}
    missing = [name for name in await reader.logs() if name not in known]
    newest = {(name.topic, name.partition): name for name in sorted([*known, *missing])}
    for name in missing:
        identity = ("replaced", "replaced")
        if newest[name.topic, name.partition] == name:
            identity = await asyncio.to_thread(topic_identity, settings, name.topic)
        await ledger.adopt_log(name, cluster_id=identity[0], topic_id=identity[1])
    return missing


async def _heads(settings: Settings) -> list[HeadRow]:
    url = settings.database_url.get_secret_value()
    operations = Operations(url, timeout_s=settings.request_timeout_s)
    try:
        return await operations.heads()
    finally:
        await operations.close()


def _bring_back(settings: Settings) -> None:
    """Holds, and orders to remove, that the database has lost."""
    if not settings.database_redactor_url.get_secret_value():
        say(
            "AUDIT_DATABASE_REDACTOR_URL is not set: holds and orders to remove were not looked for"
        )
        return
    from pipeline.compliance.again import Outcome, bring_back
    from pipeline.entrypoints.cli.keeping import Tools, expiring, with_tools

    async def run(tools: Tools) -> Outcome:
        return await bring_back(tools.keeping, await expiring(tools), tools.hold_copies)

    back = with_tools(settings, run)
    say(f"legal holds: {back.holds}\norders to carry out again: {len(back.requests)}")
    if back.requests:
        say("once a worker runs: audit-trail keeper run --once")


async def _restore_journal(settings: Settings, store: SubjectStore) -> int:
    restored = 0
    for message in read_topic(settings, KEY_JOURNAL_TOPIC):
        place = f"{KEY_JOURNAL_TOPIC}:{message.partition()}:{message.offset()}"
        restored += await store.restore(journal_entries(message.value(), place, _foreign))
    return restored


def _foreign(place: str) -> None:
    say(f"{place} is no record of the trail, passed over")


def _ledger(settings: Settings) -> PostgresLedger:
    url = settings.database_url.get_secret_value()
    return PostgresLedger(url, timeout_s=settings.request_timeout_s)


def _row(name: LogName, before: LogHead, after: LogHead) -> Row:
    return {
        "log": str(name),
        "leaves_before": before.size,
        "leaves": after.size,
        "next_offset": after.next_offset,
    }
