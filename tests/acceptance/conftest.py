"""One worker on the stack whose settings AUDIT_* hold, and what it needs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest
from audit_sdk import contract

import avro_schemas
from pipeline.settings import Settings, load_settings
from tests.acceptance.raw_topics import RawTopics
from tests.acceptance.records import cli, start_worker
from tests.proxy import FaultProxy, kafka_line


@pytest.fixture(scope="session")
def settings() -> Settings:
    if "AUDIT_KAFKA_BOOTSTRAP" not in os.environ:
        pytest.skip("no servers: start the local stack and export its audit.env")
    return load_settings()


@pytest.fixture(scope="session")
def registered(settings: Settings) -> dict[str, int]:
    """Schema ids by family."""
    cli("migrate")
    cli("tenants", "add", "acme")
    ids = {}
    for family in avro_schemas.families():
        url = f"{settings.registry_url}/subjects/audit.raw.{family}-value/versions/1"
        with urllib.request.urlopen(url) as answer:
            ids[family] = json.load(answer)["id"]
    return ids


@pytest.fixture
def worker(settings: Settings, registered: dict[str, int]) -> Iterator[subprocess.Popen[bytes]]:
    process = start_worker(
        subprocess.DEVNULL, AUDIT_ARCHIVE_MAX_AGE_S="1", AUDIT_DEAD_LETTER_WINDOW="200"
    )
    yield process
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.fixture
def raw(settings: Settings, registered: dict[str, int]) -> Iterator[RawTopics]:
    made = RawTopics(settings, *contract().families)
    yield made
    made.close()


@pytest.fixture
def topic(settings: Settings, registered: dict[str, int]) -> Iterator[RawTopics]:
    """The one that the programs of the SDKs' tests publish to."""
    made = RawTopics(settings, "authentication")
    yield made
    made.close()


@pytest.fixture
def line() -> Iterator[FaultProxy]:
    """A line to the broker that can fail."""
    made = kafka_line()
    yield made
    made.close()
