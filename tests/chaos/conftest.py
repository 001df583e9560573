"""One stack for all fault tests; they run one after the other on the same logs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.settings import Settings, load_settings
from tests.acceptance.records import make_signing_key
from tests.chaos import figures
from tests.chaos.processes import cli, free_port
from tests.erasure_support import TENANT
from tests.ordering import put_first

# They copy the whole database again and again: before the others fill it.
FIRST = ("test_restore.py", "test_rollback.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    put_first(items, Path(__file__).parent, FIRST)


@pytest.fixture(scope="session")
def settings() -> Settings:
    """The stack's, once everything that other tests published is in every store."""
    if "AUDIT_KAFKA_BOOTSTRAP" not in os.environ:
        pytest.skip("no servers: run `make test`, or `make chaos` for the full form")
    cli("migrate")
    cli("worker", AUDIT_DRAIN="true", AUDIT_HTTP_PORT=str(free_port()))
    return load_settings()


@pytest.fixture(scope="module")
def signing(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a trail that signs, and trusts what it signed."""
    folder = tmp_path_factory.mktemp("keys")
    env = {
        "AUDIT_LOG_ORIGIN": "audit.example.com/erasure",
        "AUDIT_SIGNING_KEY_FILE": str(folder / "signing.json"),
        "AUDIT_VERIFIER_KEYS_FILE": str(folder / "verifier-keys.txt"),
    }
    make_signing_key(env)
    cli("tenants", "add", TENANT)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        yield load_settings()


@pytest.fixture
def ids_file(tmp_path: Path) -> Path:
    return tmp_path / "ids.tsv"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in figures.table():
        terminalreporter.write_line(line)
