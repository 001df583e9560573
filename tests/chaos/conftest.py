"""One stack for all fault tests; they run one after the other on the same logs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.chaos.support import FIGURES, ROOT, cli, fresh_settings


@pytest.fixture(scope="session")
def settings() -> Settings:
    if "AUDIT_KAFKA_BOOTSTRAP" not in os.environ:
        pytest.skip("no servers: run `make test`, or `make chaos` for the full form")
    (ROOT / "build").mkdir(exist_ok=True)
    cli("migrate")
    return fresh_settings()


@pytest.fixture
def ids_file(tmp_path: Path) -> Path:
    return tmp_path / "ids.tsv"


@pytest.fixture(scope="session", autouse=True)
def table() -> Iterator[None]:
    yield
    for figures in FIGURES:
        name = figures["test"]
        print(name, {key: value for key, value in figures.items() if key != "test"})
