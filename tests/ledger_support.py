"""What the ledger's tests share: scratch databases on a real server, sealed events, batches.

The server is the one that the environment names (AUDIT_DATABASE_ADMIN_URL and the URLs of the
login roles, or AUDIT_ENV_FILE with them). Every scratch database is a copy of one migrated
template; tests work in it as the roles of production.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pipeline.db.migrate import migrate
from pipeline.domain.canonical import canonical_json
from pipeline.domain.errors import Reason
from pipeline.domain.merkle import leaf_hash
from pipeline.domain.records import (
    DeadLetter,
    LogHead,
    PreparedBatch,
    SealedBlob,
    SealedEvent,
)

OCCURRED_AT_US = 1_760_000_000_000_000
VARIABLES = {
    "admin": "AUDIT_DATABASE_ADMIN_URL",
    "writer": "AUDIT_DATABASE_URL",
    "reader": "AUDIT_DATABASE_READER_URL",
    "redactor": "AUDIT_DATABASE_REDACTOR_URL",
    "signer": "AUDIT_SIGNER_DATABASE_URL",
    "auditor": "AUDIT_AUDITOR_DATABASE_URL",
}


def server_urls() -> Mapping[str, str]:
    """The URLs of the roles on the test server; empty when the environment names none."""
    environment = dict(os.environ)
    env_file = environment.get("AUDIT_ENV_FILE")
    if env_file and Path(env_file).is_file():
        for line in Path(env_file).read_text(encoding="utf-8").splitlines():
            name, equals, value = line.partition("=")
            if equals:
                environment.setdefault(name.strip(), value.strip().strip("'\""))
    urls = {role: environment.get(variable, "") for role, variable in VARIABLES.items()}
    return urls if all(urls.values()) else {}


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of production."""
    return "asyncio"


@pytest.fixture(scope="module")
def template() -> Iterator[str]:
    """A migrated database of the test server to copy from."""
    urls = server_urls()
    if not urls:
        pytest.skip("no PostgreSQL: set " + ", ".join(VARIABLES.values()) + " or AUDIT_ENV_FILE")
    with migrated_template(urls) as name:
        yield name


@pytest.fixture
def database(template: str) -> Iterator[Database]:
    """A migrated database for one test."""
    with empty_database(server_urls(), template) as copy:
        yield copy


@dataclass(frozen=True, slots=True)
class Database:
    """A database of its own; ``urls`` by role."""

    name: str
    urls: Mapping[str, str]

    def run(self, role: str, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run one statement as a role; its rows."""
        with psycopg.connect(self.urls[role], autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def empty_database(urls: Mapping[str, str], template: str | None = None) -> Iterator[Database]:
    """A new database, dropped afterwards."""
    name = f"test_{uuid4().hex[:16]}"
    with psycopg.connect(urls["admin"], autocommit=True) as admin:
        create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template:
            create += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        admin.execute(create)
    try:
        yield Database(name, {role: _in_database(url, name) for role, url in urls.items()})
    finally:
        with psycopg.connect(urls["admin"], autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def migrated_template(urls: Mapping[str, str]) -> Iterator[str]:
    """The name of a migrated database to copy from."""
    with empty_database(urls) as database:
        migrate(database.urls["admin"], months_ahead=0)
        # The months that the builders' events lie in, so that only tests of months make them.
        database.run("admin", "SELECT ensure_month(to_timestamp(%s))", [OCCURRED_AT_US // 10**6])
        yield database.name


def _in_database(url: str, name: str) -> str:
    return make_conninfo(url, dbname=name)


def a_sealed_event(offset: int, **changes: Any) -> SealedEvent:
    """A sealed event at an offset; its id follows from the offset unless given.

    ``text`` is a clear value: two events with the same id and another text hash differently.
    """
    event_id = changes.pop("event_id", UUID(int=offset + 1)).bytes
    occurred_at_us = changes.pop("occurred_at_us", OCCURRED_AT_US + offset)
    subject_ref = changes.pop("subject_ref", UUID(int=7)).bytes
    clear = {
        "action": "session.start",
        "actor.type": "user",
        "event_id": str(UUID(bytes=event_id)),
        "imported": False,
        "occurred_at": occurred_at_us,
        "outcome": "success",
        "severity": "informational",
        "tenant": "acme",
        "ticket": changes.pop("text", "T-1"),
        **changes.pop("clear", {}),
    }
    sealed: dict[str, Any] = {str(UUID(bytes=subject_ref)): {"actor.id": bytes(32)}}
    canonical = canonical_json(
        {
            "clear": clear,
            "family": "authentication",
            "sealed": changes.pop("sealed", sealed),
            "v": 1,
        }
    )
    return SealedEvent(
        event_id=event_id,
        family="authentication",
        occurred_at_us=occurred_at_us,
        offset=offset,
        broker_timestamp_ms=occurred_at_us // 1000 + 20,
        schema_id=1,
        clear=clear,
        opened={},
        canonical=canonical,
        leaf_hash=leaf_hash(canonical),
        blobs=changes.pop("blobs", [SealedBlob(subject_ref, bytes(12), b"sealed %d" % offset)]),
        actor_ref=changes.pop("actor_ref", subject_ref),
    )


@dataclass(slots=True)
class ARecord:
    """A record that needs nothing but its offset."""

    offset: int
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = b""
    headers: Sequence[tuple[str, bytes]] = field(default=())


def a_dead_letter(offset: int, topic: str = "audit.raw.authentication") -> DeadLetter:
    """A record that was not accepted."""
    return DeadLetter(topic, 0, ARecord(offset), Reason.MALFORMED)


def a_batch(
    head: LogHead,
    events: Iterable[SealedEvent],
    *,
    start: int | None = None,
    end: int | None = None,
    dead: Iterable[int] = (),
) -> PreparedBatch:
    """A batch of events and dead letters; from the head to its last record unless said."""
    events = list(events)
    letters = [a_dead_letter(offset) for offset in dead]
    last = max([e.offset for e in events] + [d.record.offset for d in letters], default=-1)
    return PreparedBatch(
        head.log_id,
        head.name,
        head.next_offset if start is None else start,
        last + 1 if end is None else end,
        events,
        letters,
    )


class Proxy:
    """A TCP proxy before the server that loses what it is told to lose.

    ``drop_before``: a request with these bytes is not passed on, and the connection ends.
    ``drop_after``: it is passed on, and its answer is lost with the connection.
    """

    def __init__(self, host: str, port: int) -> None:
        self.drop_before = b""
        self.drop_after = b""
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def freeze(self) -> None:
        """Pass nothing on, end nothing."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Pass on what waits."""
        self._flowing.set()

    async def open(self) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        answers, requests = await asyncio.open_connection(*self._target)
        ended = asyncio.Event()
        lost = asyncio.Event()

        async def forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while chunk := await source.read(65536):
                await self._flowing.wait()
                if sink is requests and self.drop_before and self.drop_before in chunk:
                    self.drop_before = b""
                    break
                if sink is writer and lost.is_set():
                    break
                if sink is requests and self.drop_after and self.drop_after in chunk:
                    self.drop_after = b""
                    lost.set()
                sink.write(chunk)
                await sink.drain()
            ended.set()

        both = [
            asyncio.ensure_future(forward(reader, requests)),
            asyncio.ensure_future(forward(answers, writer)),
        ]
        try:
            await ended.wait()
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            requests.close()
            writer.close()
