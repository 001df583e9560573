"""Publish stored events again, from the ledger or the archive, as their producers sent them.

  replay_audit_logs.py --topic audit.replayed --state replay.json
  replay_audit_logs.py --topic audit.raw.data-access --source archive --log audit.raw.data-access/0/1 --state s.json

For a consumer that came late, or for a topic that lost records. Every record has the header
`audit-replay`, and the id of its event: sent to a raw topic again, an event that the trail has is a
duplicate there and stored once. Values that were erased, redacted or let expire do not come back: to
a raw topic such events are not sent, elsewhere they have the header `audit-replay-incomplete`.

Goes on where the state file says; it is written only once the brokers have what it counts.
Exit status: 0 done, 1 some events could not be sent, 2 usage or configuration, 3 a server is away.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from pipeline.compliance.keeping import microseconds
from pipeline.compliance.replay import Replayed, Replayer, ValueGone
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import RAW_TOPICS, LogName
from pipeline.domain.records import LeafRange, SealedEvent
from pipeline.entrypoints.cli.failures import ProblemFound, run
from pipeline.entrypoints.cli.options import Output
from pipeline.entrypoints.cli.output import OutputFormat, progress, say, show_rows
from pipeline.entrypoints.cli.publishing import Publisher
from pipeline.entrypoints.cli.stores import archive_reader, object_store, opening_keys
from pipeline.keys.provider import load_provider, read_key_file
from pipeline.settings import Settings, load_settings
from sinks.archive_reader import ArchiveReader
from sinks.ledger import PostgresLedger
from sinks.opening import BlobOpener
from sinks.operations import Operations
from sinks.subject_store import SubjectStore

READ_LEAVES = 1_000

app = typer.Typer(add_completion=False)


class Source(StrEnum):
    """Where the events are read."""

    LEDGER = "ledger"
    ARCHIVE = "archive"


@dataclass
class State:
    """How far each log was sent: a file, so that a run that ended goes on."""

    file: Path | None
    run_id: str = field(default_factory=lambda: str(uuid4()))
    next_leaf: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path | None) -> State:
        if file is None or not file.exists():
            return cls(file)
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            return cls(file, str(found["run_id"]), dict(found["next_leaf"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigurationError(f"--state {file} is no state of this script") from None

    def write(self) -> None:
        if self.file is not None:
            partial = self.file.with_name(f".{self.file.name}.partial")
            partial.write_text(
                json.dumps({"run_id": self.run_id, "next_leaf": self.next_leaf}), encoding="utf-8"
            )
            partial.replace(self.file)


@dataclass
class Counts:
    """What became of the events."""

    sent: int = 0
    incomplete: int = 0
    withheld: int = 0


class Pace:
    """So many a second at most, from the first one on; 0: as fast as can be."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._began = time.monotonic()
        self._given = 0

    async def __call__(self) -> None:
        self._given += 1
        if self._rate:
            due = self._began + self._given / self._rate
            await asyncio.sleep(max(due - time.monotonic(), 0))


@app.command()
def replay(
    *,
    topic: Annotated[str, typer.Option("--topic", help="Where they are sent.")],
    source: Annotated[Source, typer.Option("--source")] = Source.LEDGER,
    log: Annotated[
        list[str] | None, typer.Option("--log", help="topic/partition/epoch; may be repeated.")
    ] = None,
    tenant: Annotated[list[str] | None, typer.Option("--tenant", help="May be repeated.")] = None,
    since: Annotated[datetime | None, typer.Option("--from", help="occurred_at, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option("--until", help="Before then, UTC.")] = None,
    rate: Annotated[float, typer.Option(min=0, help="Events a second; 0: no limit.")] = 500.0,
    state: Annotated[
        Path | None, typer.Option("--state", dir_okay=False, help="Goes on where this file says.")
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Publish stored events again, as their producers sent them."""
    settings = load_settings()
    wanted = Wanted(
        frozenset(tenant or ()),
        microseconds(since.replace(tzinfo=UTC)) if since else 0,
        microseconds(until.replace(tzinfo=UTC)) if until else 2**63,
    )
    counts = asyncio.run(
        _run(settings, topic, source, log or [], wanted, Pace(rate), State.read(state))
    )
    row = {"sent": counts.sent, "incomplete": counts.incomplete, "withheld": counts.withheld}
    show_rows([row], list(row), output)
    if counts.withheld:
        raise ProblemFound(f"{counts.withheld} events were not sent: values of theirs are gone")


@dataclass(frozen=True)
class Wanted:
    """Which events; no tenants: all."""

    tenants: frozenset[str]
    since_us: int
    until_us: int

    def takes(self, event: SealedEvent) -> bool:
        in_time = self.since_us <= event.occurred_at_us < self.until_us
        return in_time and (not self.tenants or event.tenant in self.tenants)


async def _run(
    settings: Settings,
    topic: str,
    source: Source,
    logs: list[str],
    wanted: Wanted,
    pace: Pace,
    state: State,
) -> Counts:
    url, timeout_s = settings.database_url.get_secret_value(), settings.request_timeout_s
    provider = await asyncio.to_thread(load_provider, settings)
    counts = Counts()
    async with AsyncExitStack() as stack:
        ledger = PostgresLedger(url, timeout_s=timeout_s)
        store = SubjectStore(url, timeout_s=timeout_s)
        operations = Operations(url, timeout_s=timeout_s)
        for part in (ledger, store, operations):
            stack.push_async_callback(part.close)
        keys = opening_keys(settings, provider, store)
        keys.know_tenants(await store.tenants())
        texts = {one.schema_id: one.schema for one in await operations.schemas.all()}
        import_key = None
        if settings.import_key_file is not None:
            import_key = read_key_file(settings.import_key_file, "AUDIT_IMPORT_KEY_FILE")
        replayer = Replayer(texts, run_id=state.run_id, import_key=import_key)
        archive = archive_reader(settings, await stack.enter_async_context(object_store(settings)))
        opener = BlobOpener(keys)
        heads = {str(head.name): head for head in await operations.heads()}
        if unknown := set(logs) - set(heads):
            raise ConfigurationError(f"no such log: {', '.join(sorted(unknown))}")
        say(f"run {state.run_id}: {source} to {topic}")
        with Publisher(settings) as publisher, progress("events", None) as done:
            for name in sorted(logs or heads):
                first = state.next_leaf.get(name, 0)
                head = heads[name]
                ranges = _ranges(source, ledger, archive, head.log_id, head.name, first, head.size)
                async for leaves in ranges:
                    await _send(
                        await opener(leaves), topic, wanted, pace, replayer, publisher, counts
                    )
                    await asyncio.to_thread(publisher.flush)
                    state.next_leaf[name] = leaves.next_leaf
                    state.write()
                    done.advance(len(leaves.events))
    return counts


async def _ranges(
    source: Source,
    ledger: PostgresLedger,
    archive: ArchiveReader,
    log_id: int,
    name: LogName,
    first: int,
    size: int,
) -> AsyncIterator[LeafRange]:
    """The leaves of a log from the first one on, verified, some at a time."""
    if source is Source.LEDGER:
        while first < size:
            leaves = await ledger.read(log_id, first, limit=min(READ_LEAVES, size - first))
            if not leaves.events:
                return
            yield leaves
            first = leaves.next_leaf
        return
    async for found in archive.ranges(name, first):
        whole = (await archive.read(found, log_id)).from_leaf(first)
        for start in range(0, len(whole.events), READ_LEAVES):
            part = whole.events[start : start + READ_LEAVES]
            yield LeafRange(log_id, name, whole.first_leaf + start, part)


async def _send(
    leaves: LeafRange,
    topic: str,
    wanted: Wanted,
    pace: Pace,
    replayer: Replayer,
    publisher: Publisher,
    counts: Counts,
) -> None:
    for event in leaves.events:
        if not wanted.takes(event):
            continue
        replayed = _rebuilt(replayer, event, topic)
        # To a raw topic an incomplete one would be the same id with another content: a dead letter.
        if replayed is None or (not replayed.complete and topic in RAW_TOPICS):
            counts.withheld += 1
            continue
        await pace()
        record = replayed.record
        publisher.publish(topic, key=record.key, value=record.value, headers=record.headers)
        counts.sent += 1
        counts.incomplete += not replayed.complete


def _rebuilt(replayer: Replayer, event: SealedEvent, topic: str) -> Replayed | None:
    try:
        return replayer.record(event, topic)
    except ValueGone:
        return None


if __name__ == "__main__":
    run(app)
