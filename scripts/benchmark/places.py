"""The bench's own stack, and for every run a fresh database, index, buckets and consumer group.

A run is what one worker or one loader writes; none sees what an earlier one left behind.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg
from confluent_kafka import TopicPartition
from psycopg import sql
from psycopg.conninfo import make_conninfo

from agents.recovery import JOURNAL_READER, NO_LOG
from pipeline.domain.logs import KEY_JOURNAL_TOPIC
from pipeline.entrypoints.cli import setup_steps
from pipeline.entrypoints.cli.kafka import admin_client, reader
from pipeline.entrypoints.cli.tenants import add_tenants
from pipeline.settings import Settings
from sinks.ledger import PostgresLedger

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
_STACK = [sys.executable, str(ROOT / "infra" / "local" / "stack.py")]
_DATABASE = re.compile(r"AUDIT_(\w+_)?DATABASE_(\w+_)?URL")  # each role's
_GONE_WITHIN_S = 30.0


class Stack:
    """The local stack of this bench: its own folder and ports, so that no other one is disturbed."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        own = {
            "AUDIT_STACK_DIR": str(ROOT / ".stack-bench"),
            "AUDIT_STACK_PORT_BASE": "23500",
            "AUDIT_STACK_JIT": "full",
            "AUDIT_STACK_ELASTICSEARCH_HEAP": "1g",  # with 512m both sides meet its circuit breaker
        }
        self._environment = {**own, **environment}
        self.settings: dict[str, str] = {}

    def up(self) -> None:
        """Start it; one that is up stays as it is."""
        self._run("up")
        lines = self._run("env").splitlines()
        self.settings = dict(line.split("=", 1) for line in lines if "=" in line)

    def down(self) -> None:
        """Stop it and forget its data."""
        self._run("clean")

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [*_STACK, *words], env=self._environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout


class Place:
    """Where one run writes: the environment of its process, and the settings in it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.settings = settings_of(environment)


def settings_of(environment: Mapping[str, str]) -> Settings:
    """The settings that a process with this environment would have."""
    given = {
        name.removeprefix("AUDIT_").lower(): value
        for name, value in environment.items()
        if name.startswith("AUDIT_") and not name.startswith("AUDIT_STACK_")
    }
    return Settings(**given)  # type: ignore[arg-type]


class Places:
    """Makes places on a stack. ``open`` once, then any number of ``place``."""

    def __init__(self, stack: Stack) -> None:
        self._base = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AUDIT_")},
            **stack.settings,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "scripts"))),
            "AUDIT_HTTP_PORT": "0",
            "AUDIT_LOG_LEVEL": "WARNING",
        }
        self._template = self._with_database("bench_template")
        self._run = 0

    def open(self, tenants: list[str]) -> Settings:
        """Topics, schemas, and a migrated database with tenants that every run starts from."""
        self._drop("bench_template")
        self._admin("CREATE DATABASE {}", "bench_template")
        settings = settings_of(self._template)
        for outcome in setup_steps.run_steps(settings):
            if outcome.status != "ok":
                raise RuntimeError(f"{outcome.step}: {outcome.detail}")
        add_tenants(settings, tenants)
        return settings

    @contextmanager
    def place(self, *, object_leaves: int) -> Iterator[Place]:
        """A fresh place; its database and its indices are dropped afterwards."""
        self._run += 1
        name = f"bench_{os.getpid()}_{self._run}"
        self._admin("CREATE DATABASE {} TEMPLATE bench_template", name)
        dashed = name.replace("_", "-")
        place = Place(
            {
                **self._with_database(name),
                "AUDIT_INDEX_PREFIX": dashed,
                "AUDIT_S3_ARCHIVE_BUCKET": f"{dashed}-archive",
                "AUDIT_S3_VAULT_BUCKET": f"{dashed}-vault",
                "AUDIT_CONSUMER_GROUP": dashed,
                "AUDIT_ARCHIVE_MAX_EVENTS": str(object_leaves),
            }
        )
        settings = place.settings
        try:
            setup_steps.put_template(settings)
            setup_steps.make_buckets(settings)
            setup_steps.make_topics(settings)  # the changelog of this consumer group's table
            # Made beforehand for both sides: a month's index is made once a month.
            self._index(settings, "PUT", datetime.now(UTC).strftime(f"{dashed}-%Y.%m"))
            asyncio.run(_skip_journal(settings))
            with psycopg.connect(self._base["AUDIT_DATABASE_ADMIN_URL"], autocommit=True) as admin:
                admin.execute("CHECKPOINT")
            yield place
        finally:
            self._index(settings, "DELETE", f"{dashed}-{datetime.now(UTC):%Y.%m}")
            self._drop(name)

    def empty_topics(self) -> None:
        """Delete the records of every raw topic, by deleting the topics and making them again."""
        settings = settings_of(self._template)
        admin = admin_client(settings)
        raw = [
            name for name in admin.list_topics(timeout=10).topics if name.startswith("audit.raw.")
        ]
        for answer in admin.delete_topics(raw).values():
            answer.result()
        ends = time.monotonic() + _GONE_WITHIN_S
        while set(raw) & set(admin.list_topics(timeout=10).topics):
            if time.monotonic() > ends:
                raise RuntimeError("the broker does not delete the raw topics")
            time.sleep(0.2)
        setup_steps.make_topics(settings)

    def _with_database(self, name: str) -> dict[str, str]:
        return {
            **self._base,
            **{
                url: make_conninfo(address, dbname=name)
                for url, address in self._base.items()
                if _DATABASE.fullmatch(url)
            },
        }

    def _admin(self, statement: str, name: str) -> None:
        with psycopg.connect(self._base["AUDIT_DATABASE_ADMIN_URL"], autocommit=True) as admin:
            admin.execute(sql.SQL(statement).format(sql.Identifier(name)))  # type: ignore[arg-type]

    def _drop(self, name: str) -> None:
        self._admin("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    @staticmethod
    def _index(settings: Settings, method: str, index: str) -> None:
        url = f"{settings.elasticsearch_url}/{index}"
        httpx.request(method, url, timeout=30).raise_for_status()


async def _skip_journal(settings: Settings) -> None:
    """The keys of earlier runs are not this database's: recovery begins after them."""
    consumer = reader(settings)
    try:
        end = consumer.get_watermark_offsets(TopicPartition(KEY_JOURNAL_TOPIC, 0), timeout=10)[1]
    finally:
        consumer.close()
    ledger = PostgresLedger(settings.database_url.get_secret_value())
    try:
        await ledger.open()
        await ledger.advance(JOURNAL_READER, {NO_LOG: end})
    finally:
        await ledger.close()
