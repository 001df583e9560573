"""What a machine lacks is left out of `make test` and said; what CI says that it has must be tested."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests import tools

ROOT = Path(__file__).parents[2]
BROWSER = "tests/acceptance/test_relay_browser.py"


def bare(*words: str, require: str = "") -> subprocess.CompletedProcess[str]:
    """A Python on a machine that has nothing else."""
    path = f"{ROOT}:{ROOT / 'sdk' / 'python'}:{ROOT / 'scripts'}"
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": path, tools.REQUIRE: require},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "needed", "said"),
    [
        (("-c", "import sys, run_tests; sys.exit(run_tests.other_sdks())"), "node", "not tested"),
        (("-c", "import sys, run_tests; sys.exit(run_tests.other_sdks())"), "go", "not tested"),
        (("scripts/run_tests.py", "--vet"), "go", "not vetted"),
    ],
)
def test_an_sdk_without_its_tool_is_left_out_unless_it_is_required(
    words: tuple[str, ...], needed: str, said: str
) -> None:
    left_out, failed = bare(*words), bare(*words, require=f"chromium,{needed}")

    assert left_out.returncode == 0
    assert failed.returncode == 1
    for done in (left_out, failed):
        assert f"{said}: it needs {needed}" in done.stderr


def test_a_test_without_its_tool_is_left_out_unless_it_is_required() -> None:
    command = ("-m", "pytest", "-q", "-rs", BROWSER)
    left_out, failed = bare(*command), bare(*command, require="chromium")

    assert (left_out.returncode, failed.returncode) == (0, 1)
    assert "it needs Chromium" in left_out.stdout
    assert "AUDIT_TEST_REQUIRE names chromium" in failed.stdout


def test_the_tools_of_a_machine_are_those_that_ci_requires() -> None:
    none = bare("scripts/run_tests.py", "--tools")
    here = ",".join(tool for tool in tools.TOOLS if not tools.lacking(tool))
    some = subprocess.run(
        [sys.executable, "scripts/run_tests.py", "--tools"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert (none.returncode, none.stdout) == (0, "\n")
    assert "without chromium: it needs Chromium" in none.stderr
    assert some.stdout == f"{here}\n"


def test_a_tool_that_is_none_is_refused() -> None:
    done = bare("scripts/run_tests.py", "--tools", require="nodejs")

    assert done.returncode == 2
    assert "no tool is named nodejs; there are node, go, chromium" in done.stderr


def test_the_full_form_installs_the_packages_that_its_tests_of_an_sdk_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    run_tests = import_module("run_tests")
    done: list[str] = []

    def ran(_environment: Any, *words: str, **_options: Any) -> int:
        done.extend(words)
        return 0

    monkeypatch.setattr(run_tests, "pytest", ran)
    monkeypatch.setattr(run_tests, "stack", lambda *_words, **_options: nullcontext({}))
    monkeypatch.setattr(run_tests, "node_modules", lambda at: done.append(at.name))
    monkeypatch.setattr(tools, "lacking", lambda _tool: "")
    monkeypatch.setattr(sys, "argv", ["run_tests.py", "--chaos"])

    assert run_tests.main() == 0
    (away,) = (word for word in done if "test_sdk_nodejs.py" in word)
    assert done.index("nodejs") < done.index(away)
