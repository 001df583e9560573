"""The quick start of each SDK, as its README has it: `audit-trail status` and the index show the event."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import Settings
from tests.acceptance.records import ROOT, cli, indexed, start_worker, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SDKS = ROOT / "sdk"
TENANT = "audit-trail tenants add"
OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
Start = Callable[[Settings, Path], list[str]]


@pytest.fixture(scope="module")
def one_worker(settings: Settings, registered: dict[str, int]) -> Iterator[None]:
    """One for all three."""
    process = start_worker(subprocess.DEVNULL, AUDIT_ARCHIVE_MAX_AGE_S="1")
    yield
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def blocks(sdk: str, kind: str) -> list[str]:
    readme = (SDKS / sdk / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)


def lines(sdk: str, start: str) -> list[str]:
    """The lines of a README that begin so, or with settings before it."""
    readme = (SDKS / sdk / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^(?:[A-Z_]+=\S+ )?(?:\S+/)?{start}.*$", readme, re.MULTILINE)


def python(settings: Settings, folder: Path) -> list[str]:
    (install,) = lines("python", "pip ")
    program = next(block for block in blocks("python", "python") if "with Audit(" in block)
    (folder / "start.py").write_text(here(program, settings), encoding="utf-8")
    pip = [sys.executable, "-m", *install.split(), *OFFLINE, "--target", str(folder)]
    subprocess.run(pip, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return [sys.executable, "start.py"]  # its folder is before PYTHONPATH


def nodejs(settings: Settings, folder: Path) -> list[str]:
    program = next(block for block in blocks("nodejs", "js") if "new Audit(" in block)
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "audit-sdk").symlink_to(SDKS / "nodejs")
    (folder / "start.mjs").write_text(here(program, settings), encoding="utf-8")
    return ["node", "start.mjs"]


def go(settings: Settings, folder: Path) -> list[str]:
    commands = next(block for block in blocks("go", "sh") if "go mod" in block)
    program = blocks("go", "go")[0]
    (folder / "main.go").write_text(here(program, settings), encoding="utf-8")
    return ["sh", "-e", "-c", commands.replace("../audit-trail/sdk/go", str(SDKS / "go"))]


@pytest.mark.parametrize(
    "start",
    [
        python,
        pytest.param(nodejs, marks=pytest.mark.needs("node")),
        pytest.param(go, marks=pytest.mark.needs("go")),
    ],
)
def test_the_quick_start_is_in_the_index_and_in_the_status(
    settings: Settings, one_worker: None, start: Start, tmp_path: Path
) -> None:
    before = leaves()

    done = subprocess.run(
        start(settings, tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    wait_until_indexed(settings, done.stdout.strip())
    assert leaves() == before + 1


@pytest.mark.parametrize("sdk", ["python", "nodejs", "go"])
def test_the_line_that_adds_the_tenant_runs_with_nothing_but_its_file_of_settings(
    registered: dict[str, int], sdk: str, tmp_path: Path
) -> None:
    (line,) = lines(sdk, TENANT)
    own = {name: value for name, value in os.environ.items() if name.startswith("AUDIT_")}
    file = tmp_path / "audit.env"
    text = "".join(f"{name}={value}\n" for name, value in own.items() if name != "AUDIT_ENV_FILE")
    file.write_text(text, encoding="utf-8")

    typed = line.replace(".stack/audit.env", str(file)).replace(
        ".venv/bin/audit-trail", f"{sys.executable} -m pipeline.entrypoints.cli"
    )
    done = subprocess.run(
        ["sh", "-c", typed],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in own},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert str(file) in typed
    assert sys.executable in typed
    assert done.returncode == 0, done.stderr


def leaves() -> int:
    """Of the quick start's topic, once the worker has all that is in it."""

    def rows() -> list[dict[str, Any]]:
        found = json.loads(cli("status", "-o", "json"))
        return [row for row in found if row["log"].startswith("audit.raw.data-access/")]

    done = wait_until(lambda: [row for row in (rows(),) if not any(r["lag_records"] for r in row)])
    return sum(row["leaves"] for row in done[0])


def here(readme_block: str, settings: Settings) -> str:
    """A README's program, with the servers of the test."""
    return readme_block.replace("127.0.0.1:19092", settings.kafka_bootstrap).replace(
        "http://127.0.0.1:18080/apis/ccompat/v7", settings.registry_url
    )


def wait_until_indexed(settings: Settings, event_id: str) -> None:
    """The worker has brought the quick start's event to the index, and its producer's last heartbeat."""
    (event,) = wait_until(lambda: indexed(settings, f"event.id:{event_id}"))
    assert event["event.action"] == "invoice.read"
    told = (
        f"audit.producer.epoch:{event['audit.producer.epoch']} AND event.action:producer.heartbeat"
    )
    beats = wait_until(
        lambda: [one for one in indexed(settings, told) if one["audit.heartbeat.final"]]
    )
    (progress,) = beats[0]["audit.progress"]
    assert progress["topic"] == "audit.raw.data-access"
    assert (progress["accepted"], progress["delivered"]) == (1, 1)
