"""The bare loader: ready bytes into the same stores, and nothing else.

`python -m benchmark.loader_process PREPARED REPORT`: reads what ``prepared`` saved, then writes to
PostgreSQL, Elasticsearch and S3 at once, each as fast as it takes what is given. The clock runs
from then until the last store has everything; reading the file and making clients is not counted.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import psycopg

from benchmark.prepared import INDEX, Prepared, StoredObject, Transaction, load
from pipeline.domain.logs import LogName
from pipeline.settings import Settings, load_settings
from sinks import ledger_sql, rows, s3

_BULKS_IN_FLIGHT = 2  # as the worker
_PUTS_IN_FLIGHT = 4
_OK = 200


def main(source: Path, report: Path) -> None:
    """Load, wait for nothing, write, report."""
    settings = load_settings()
    prepared = load(source)
    jobs = [
        _postgres(settings, prepared),
        _elasticsearch(settings, prepared),
        _s3(settings, prepared),
    ]
    failures: list[BaseException] = []
    ended: dict[str, float] = {}
    begin = threading.Event()

    def run(name: str, job: Callable[[], None]) -> None:
        begin.wait()
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the main thread
            failures.append(error)
        ended[name] = time.perf_counter()

    names = ("ledger", "index", "archive")
    threads = [threading.Thread(target=run, args=pair) for pair in zip(names, jobs, strict=True)]
    for thread in threads:
        thread.start()
    cpu, started = _cpu_s(), time.perf_counter()
    begin.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    found = {
        "events": prepared.events,
        "wall_s": max(ended.values()) - started,
        "cpu_s": _cpu_s() - cpu,
        "until_s": {name: at - started for name, at in ended.items()},
    }
    report.write_text(json.dumps(found), encoding="utf-8")


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _postgres(settings: Settings, prepared: Prepared) -> Callable[[], None]:
    """One connection, as the worker's ledger has; one transaction after the other."""
    connection = psycopg.connect(settings.database_url.get_secret_value())
    for partition in range(max(each.log_id for each in prepared.transactions)):
        name = LogName(prepared.topic, partition, 1)
        connection.execute(
            ledger_sql.INSERT_HEAD, [str(name), prepared.topic, partition, 1, "bench", "bench", 0]
        )
    connection.commit()

    def write() -> None:
        for transaction in prepared.transactions:
            _store(connection, transaction)
        connection.close()

    return write


def _store(connection: psycopg.Connection, each: Transaction) -> None:
    with connection.cursor() as cursor:
        for statement, stream in (
            (rows.COPY_LEAVES, each.leaves),
            (rows.COPY_EVENTS, each.events),
            (rows.COPY_BLOBS, each.blobs),
        ):
            with cursor.copy(statement) as copy:
                copy.write(stream)
        cursor.execute(
            ledger_sql.MOVE_HEADS,
            [[each.log_id], [each.next_leaf], [each.next_leaf], [each.frontier], [each.root]],
        )
        cursor.execute(
            ledger_sql.INSERT_INTAKE,
            [
                [each.log_id],
                [each.first_leaf],
                [each.next_leaf],
                [each.first_leaf],
                [each.next_leaf - each.first_leaf],
                [0],
                [0],
                [0],
                [False],
            ],
        )
    connection.commit()


def _elasticsearch(settings: Settings, prepared: Prepared) -> Callable[[], None]:
    """Two requests under way at any time."""
    index = settings.index_prefix.encode()
    bodies = [body.replace(INDEX.encode(), index) for body in prepared.bulk_bodies]
    address = urlsplit(settings.elasticsearch_url)
    local = threading.local()

    def send(body: bytes) -> None:
        client = getattr(local, "client", None)
        if client is None:
            client = local.client = http.client.HTTPConnection(
                cast("str", address.hostname), address.port, timeout=60
            )
        client.request(
            "POST",
            "/_bulk?filter_path=errors,items.*.status,items.*.error.type",
            body,
            {"content-type": "application/x-ndjson"},
        )
        answer = client.getresponse()
        said = answer.read()
        if answer.status != _OK or not said.startswith(b'{"errors":false'):
            raise RuntimeError(f"bulk: status {answer.status}: {said[:300]!r}")

    def write() -> None:
        with ThreadPoolExecutor(_BULKS_IN_FLIGHT) as pool:
            list(pool.map(send, bodies))

    return write


def _s3(settings: Settings, prepared: Prepared) -> Callable[[], None]:
    """Four puts under way, in whatever order."""
    client = s3.connect(
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        timeout_s=60,
    )
    until = datetime.now(UTC) + timedelta(days=settings.retention_days)
    lock = s3.Lock(cast("s3.LockMode", settings.s3_lock_mode), until)
    room = asyncio.Semaphore(_PUTS_IN_FLIGHT)

    async def put(each: StoredObject) -> None:
        bucket = settings.s3_archive_bucket if each.locked else settings.s3_vault_bucket
        async with room:
            stored = await client.put(
                bucket,
                each.key,
                each.body,
                metadata=each.metadata,
                body_sha256=each.body_sha256,
                absent=True,
                lock=lock if each.locked else None,
            )
        if not stored:
            raise RuntimeError(f"object {each.key} was there")

    async def put_all() -> None:
        async with asyncio.TaskGroup() as group:
            for each in prepared.objects:
                group.create_task(put(each))

    return lambda: asyncio.run(put_all())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
