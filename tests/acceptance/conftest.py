"""One worker on the stack whose settings AUDIT_* hold, and what it needs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from audit_sdk import contract

import avro_schemas
from pipeline.settings import Settings, load_settings
from tests.acceptance.raw_topics import RawTopics
from tests.acceptance.records import cli, make_signing_key, start_worker
from tests.ordering import put_first
from tests.proxy import FaultProxy, kafka_line

ORIGIN = "audit.example.com/acceptance"
# They look at the whole trail, which later tests change as nobody may.
FIRST = ("test_verify.py", "test_export.py", "test_signer.py", "test_subject_report.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    put_first(items, Path(__file__).parent, FIRST)


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


@pytest.fixture(scope="session")
def signing(registered: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What whoever signs needs beside its servers: one origin, and one file of keys, since all sign the
    same logs. The key is made by the command line.
    """
    folder = tmp_path_factory.mktemp("signing")
    environment = {
        "AUDIT_LOG_ORIGIN": ORIGIN,
        "AUDIT_SIGNING_KEY_FILE": str(folder / "signing.json"),
        "AUDIT_VERIFIER_KEYS_FILE": str(folder / "verifier-keys.txt"),
    }
    make_signing_key(environment)
    return environment


@pytest.fixture(scope="module")
def worker(settings: Settings, registered: dict[str, int]) -> Iterator[subprocess.Popen[bytes]]:
    """One for all tests of a file: starting it takes longer than most of them."""
    with a_worker() as process:
        yield process


@pytest.fixture
def fresh_worker(
    settings: Settings, registered: dict[str, int]
) -> Iterator[subprocess.Popen[bytes]]:
    """One that has seen nothing, for a test that leaves a partition paused, or looks at a peak."""
    with a_worker() as process:
        yield process


@contextmanager
def a_worker() -> Iterator[subprocess.Popen[bytes]]:
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
