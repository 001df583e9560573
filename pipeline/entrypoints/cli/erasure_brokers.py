"""Kafka and the search index as an erasure needs them, over the command line's clients."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from json import loads
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from confluent_kafka import TopicPartition

from pipeline.codec.lenient import texts_of_records
from pipeline.codec.limits import Limits
from pipeline.codec.redaction_command import decode_command, encode_command
from pipeline.codec.types import Node, parse
from pipeline.codec.wire import HEADER_BYTES
from pipeline.compliance.erasure_parts import Pending, RawPlace
from pipeline.domain.erasure import RedactionCommand
from pipeline.domain.logs import RAW_TOPICS, REDACTIONS_TOPIC
from pipeline.entrypoints.cli import dead_letters
from pipeline.entrypoints.cli.announcing import publish_system
from pipeline.entrypoints.cli.dead_letters import Selection, letter_keys, read_letters, select
from pipeline.entrypoints.cli.kafka import (
    admin_client,
    kafka_errors,
    read_topic,
    topic_marks,
)
from pipeline.entrypoints.cli.output import say
from pipeline.entrypoints.cli.publishing import Publisher
from pipeline.entrypoints.cli.stores import call_operations, searching
from pipeline.keys.subjects import Subject, subject_message
from sinks.subject_store import Position

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from pipeline.keys.provider import KeyProvider
    from pipeline.settings import Settings

_TRIPLE: Final = ("tenant", "id_type", "id")
_TASK_LOOK_S: Final = 0.5
_SUBJECT_FIELD: Final = "audit.subject_ref"


class KafkaBrokers:
    """``pipeline.compliance.erasure_parts.Brokers``."""

    def __init__(self, settings: Settings, provider: KeyProvider) -> None:
        self._settings = settings
        self._provider = provider

    def publish_event(self, event: dict[str, Any]) -> None:
        """See ``Brokers``."""
        publish_system(self._settings, [event])

    def publish_command(self, command: RedactionCommand) -> None:
        """See ``Brokers``."""
        with Publisher(self._settings) as publisher:
            publisher.publish(
                REDACTIONS_TOPIC,
                key=str(command.request_id).encode(),
                value=encode_command(command, self._provider.mac),
            )

    def commands(self) -> Iterable[RedactionCommand]:
        """See ``Brokers``; a record that is none is said and passed over."""
        found: dict[UUID, RedactionCommand] = {}
        for message in read_topic(self._settings, REDACTIONS_TOPIC):
            try:
                command = decode_command(message.value(), self._provider.mac)
            except ValueError as error:
                say(f"{REDACTIONS_TOPIC}:0:{message.offset()} is skipped: {error}")
                continue
            found[command.request_id] = command
        return list(found.values())

    def journal_end(self) -> int:
        """See ``Brokers``."""
        from pipeline.domain.logs import KEY_JOURNAL_TOPIC

        return topic_marks(self._settings, KEY_JOURNAL_TOPIC)[0][1]

    def raw_ends(self) -> Mapping[RawPlace, int]:
        """See ``Brokers``."""
        return {
            (topic, partition): end
            for topic in RAW_TOPICS
            for partition, (_first, end) in topic_marks(self._settings, topic).items()
        }

    def delete_below(self, offsets: Mapping[RawPlace, int]) -> None:
        """See ``Brokers``."""
        if not offsets:
            return
        admin = admin_client(self._settings)
        wanted = [TopicPartition(topic, part, offset) for (topic, part), offset in offsets.items()]
        with kafka_errors("deleting records", admin):
            timeout_s = self._settings.request_timeout_s
            answers = admin.delete_records(
                wanted, request_timeout=timeout_s, operation_timeout=timeout_s
            )
            for answer in answers.values():
                answer.result()

    def letters_naming(self, hashes: frozenset[bytes]) -> list[Position]:
        """See ``Brokers``. Decoded by the schemas that the ledger recorded: no registry is asked."""
        letters = select(read_letters(self._settings), Selection())
        if not letters:
            return []
        recorded = call_operations(self._settings, lambda operations: operations.schemas.all())
        schemas = {row.schema_id: parse(loads(row.schema), Limits()) for row in recorded}
        keys = letter_keys(self._settings, self._provider, letters)
        named: list[Position] = []
        for piece in dead_letters.pieces(letters):
            for letter, original in dead_letters.originals(self._settings, piece, keys):
                if original is None or original.value is None:
                    continue
                subjects = _subjects(original.value, schemas)
                if any(self._provider.mac(subject_message(one)) in hashes for one in subjects):
                    named.append(letter.label.id)
        return named


class ElasticIndex:
    """``pipeline.compliance.erasure_parts.SearchIndex``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pattern = f"{settings.index_prefix}-*"

    def refresh(self) -> None:
        """See ``SearchIndex``."""
        with searching(self._settings) as client:
            client.indices.refresh(index=self._pattern, allow_no_indices=True)

    def count(self, refs: Sequence[UUID]) -> int:
        """See ``SearchIndex``."""
        query = {"terms": {_SUBJECT_FIELD: [str(ref) for ref in refs]}}
        with searching(self._settings) as client:
            answer = client.count(index=self._pattern, query=query, allow_no_indices=True)
        return int(answer["count"])

    def expunge(self) -> int:
        """See ``SearchIndex``."""
        with searching(self._settings) as client:
            indices = sorted(client.indices.get(index=self._pattern, allow_no_indices=True))
            self._wait_for_leases(client)
            for index in indices:
                # Else segments with less than a tenth of deleted documents are left as they are.
                client.indices.put_settings(
                    index=index, settings={"index.merge.policy.expunge_deletes_allowed": 0}
                )
                task = client.indices.forcemerge(
                    index=index, only_expunge_deletes=True, wait_for_completion=False
                )["task"]
                while not client.tasks.get(task_id=task)["completed"]:
                    time.sleep(_TASK_LOOK_S)
                client.indices.flush(index=index, force=True, wait_if_ongoing=True)
        return len(indices)

    def _wait_for_leases(self, client: Elasticsearch) -> None:
        """Until no shard keeps what was replaced up to now for a copy that might ask for it: a merge leaves
        that where it is. Leases move on every 30 s (``index.soft_deletes.retention_lease.sync_interval``),
        and behind a flush.
        """
        heads = {shard: head for shard, head, _kept in self._histories(client)}
        deadline = time.monotonic() + self._settings.erasure_wait_s
        while True:
            client.indices.flush(index=self._pattern, force=True, wait_if_ongoing=True)
            held = [
                shard
                for shard, head, kept in self._histories(client)
                if kept <= heads.get(shard, head)
            ]
            if not held:
                return
            if time.monotonic() > deadline:
                raise Pending(f"{len(held)} shards of the index keep what was replaced")
            time.sleep(_TASK_LOOK_S)

    def _histories(self, client: Elasticsearch) -> Iterator[tuple[str, int, int]]:
        """Of each copy of a shard: which, its newest operation, and the first one that it keeps."""
        stats = client.indices.stats(index=self._pattern, level="shards", metric="translog")
        for index, found in stats["indices"].items():
            for number, copies in found["shards"].items():
                for copy in copies:
                    shard = f"{index}/{number}/{copy['routing']['node']}"
                    kept = [
                        lease["retaining_seq_no"] for lease in copy["retention_leases"]["leases"]
                    ]
                    head = copy["seq_no"]["max_seq_no"]
                    yield shard, head, min(kept, default=head + 1)


def _subjects(value: bytes, schemas: Mapping[int, Node]) -> Iterator[Subject]:
    """Every triple of tenant, id type and id in a record, of as much of it as its schema can read."""
    schema = schemas.get(int.from_bytes(value[1:HEADER_BYTES], "big"))
    if schema is None or value[:1] != b"\x00":
        return
    for texts in texts_of_records(value[HEADER_BYTES:], schema):
        triple = [texts.get(name, "") for name in _TRIPLE]
        if all(triple):
            yield Subject(*triple)
