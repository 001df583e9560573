"""The relay against its own description: schemathesis, every check, and nothing to find."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.records import ROOT
from tests.acceptance.relay_process import PATH, RelayProcess, a_relay_process

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
]

MAX_TIME_S = 20  # of which the examples and the coverage take most
MANY = "1000000"  # more than a run sends


@pytest.fixture(scope="module")
def relay(
    registered: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RelayProcess]:
    with a_relay_process(
        tmp_path_factory.mktemp("relay"),
        AUDIT_RELAY_ACTOR_EVENTS_PER_MINUTE=MANY,
        AUDIT_RELAY_TENANT_EVENTS_PER_MINUTE=MANY,
    ) as made:
        yield made


def test_no_request_finds_what_the_description_does_not_say(
    relay: RelayProcess, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{relay.url}/openapi.json"),
            *("--checks", "all", "--phases", "examples,coverage,fuzzing", "--no-color"),
            *("--max-time", str(MAX_TIME_S), "--header", f"Authorization: Bearer {relay.token()}"),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.acceptance.relay_hooks",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )

    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    cases = re.search(r"(\d+) generated", done.stdout)
    assert cases is not None
    assert int(cases[1]) > 20  # some 500 where nothing else runs
    # What the description allows was taken: the run was no string of 401s.
    with urllib.request.urlopen(f"{relay.url}/metrics") as answer:
        page = answer.read().decode()
    taken = re.search(r'events_total\{result="accepted"\} (\d+)', page)
    assert taken is not None
    assert int(taken[1]) > 0


def test_the_description_says_every_answer_and_how_to_authenticate(relay: RelayProcess) -> None:
    _, described, _ = relay.ask(f"{relay.url}/openapi.json")
    assert list(described["paths"]) == [PATH]
    post = described["paths"][PATH]["post"]

    assert set(post["responses"]) == {
        *("202", "400", "401", "403", "408", "409", "413", "415", "422", "429", "500", "503")
    }
    for status, response in post["responses"].items():
        media = "application/json" if status == "202" else "application/problem+json"
        assert list(response["content"]) == [media]
    assert post["security"] == [{"token": []}]
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert set(post["requestBody"]["content"]) == {"application/json", "text/plain"}
    assert actions(described) == set(
        json.loads((ROOT / "samples/relay/actions.json").read_text(encoding="utf-8"))
    )


def actions(described: dict[str, Any]) -> set[str]:
    """Those of every kind of event."""
    return {
        action
        for one in described["components"]["schemas"].values()
        for action in one.get("properties", {}).get("action", {}).get("enum", ())
    }
