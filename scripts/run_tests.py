"""`make test` and `make chaos`: stacks of their own, every test on them, and everything down again.

What needs no server comes first, while a stack comes up: what is wrong there is known in a minute.
Then two lanes side by side, each on its stack: the fault tests, which end servers and mostly wait for
them, and all others: first those that share the stack, then those that have it for themselves. Words
after the options go to pytest. Exits with the first status that is not 0.

What needs a tool that the machine lacks is left out, and said; AUDIT_TEST_REQUIRE (node, go, chromium)
names the tools without which it fails instead.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import tools  # noqa: E402

STACK = [sys.executable, str(ROOT / "infra" / "local" / "stack.py")]
# Beside a stack of `make demo`, never on it: its data are deleted.
FOLDER = {"AUDIT_STACK_DIR": str(ROOT / ".stack-test")}
PORT_BASE = "AUDIT_STACK_PORT_BASE"
PORTS = {PORT_BASE: "21500"}
# The stack of the fault tests: so many ports further on, wherever single ports of the first one are.
FAULTS_FOLDER = {"AUDIT_STACK_DIR": str(ROOT / ".stack-test-faults")}
FAULTS_PORTS_ON = 100
ONE_PORT = re.compile(r"AUDIT_STACK_\w+_PORT")
SIDE_BY_SIDE = ("--numprocesses=logical", "--dist=loadfile")
NO_SERVER = ("tests/unit", "sdk/python/tests")
# What publishes, and mostly waits for the broker: the other SDKs' own tests run beside it.
PRODUCERS = tuple(
    f"tests/acceptance/test_{name}.py"
    for name in ("sdk_python", "sdk_nodejs", "sdk_go", "relay", "relay_openapi", "relay_starts")
)
SHARED = (
    "tests/contract",
    "tests/integration",
    "tests/migration",
)  # names of their own in each store
AWAY = tuple(
    f"tests/acceptance/test_sdk_{name}.py::test_a_broker_that_is_away_delays_no_call_and_loses_nothing"
    for name in ("python", "nodejs", "go")
)
ALONE = "tests/acceptance"  # they end servers, or watch all that a worker does
FAULTS = "tests/chaos"
GIVE_WAY = 5  # nice(1)
FAULTS_LOG = ROOT / "build" / "fault-tests.log"
ALL_TESTS_MAX_S = 1_300.0  # with set-up 25 minutes, on two slow cores and from empty caches
# tool → (how it tests, where)
SDKS = {"node": (["node", "--test"], "nodejs"), "go": (["go", "test", "./..."], "go")}


def main() -> int:
    """Run the tests; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--chaos", action="store_true", help="Properties and fault tests, in their full form."
    )
    parser.add_argument("--conformance", action="store_true", help="The SDKs' tests alone.")
    parser.add_argument("--vet", action="store_true", help="Look at the Go SDK's source.")
    parser.add_argument(
        "--tools", action="store_true", help="Which of the tools are here, for AUDIT_TEST_REQUIRE."
    )
    parser.add_argument("--keep", action="store_true", help="Leave the stack up afterwards.")
    options, words = parser.parse_known_args()
    environment = PORTS | dict(os.environ) | FOLDER
    try:
        tools.required()
    except ValueError as error:
        parser.error(str(error))
    if options.tools:
        return say_tools()
    if options.conformance:
        return pytest(environment, "sdk/python/tests", *words) or other_sdks()
    if options.vet:
        return vet()
    if options.chaos:
        environment |= {"AUDIT_CHAOS": "full", "AUDIT_STACK_JIT": "full"}
        status = pytest(environment, "tests/unit", "--numprocesses=logical", *words)
        prepare_other_sdks()
        with stack(environment, keep=options.keep) as settings:
            return pytest(environment | settings, FAULTS, *AWAY, *words) or status
    started_at = time.monotonic()
    with coming_up(environment):
        status = pytest(environment, *NO_SERVER, "--numprocesses=logical", *words)
    if status:
        subprocess.run([*STACK, "clean"], env=environment, check=False)
        return status
    prepare_other_sdks()
    with ThreadPoolExecutor(1) as beside:
        faults = beside.submit(fault_tests, environment, words, keep=options.keep)
        status = server_tests(environment, words, keep=options.keep)
        try:
            status = faults.result() or status
        finally:
            print(FAULTS_LOG.read_text(encoding="utf-8"), file=sys.stderr)
    took_s = time.monotonic() - started_at
    print(f"all tests in {took_s:.0f} s", file=sys.stderr)
    if took_s > ALL_TESTS_MAX_S:
        print(f"that is more than {ALL_TESTS_MAX_S:.0f} s: see CONTRIBUTING.md", file=sys.stderr)
    return status


def server_tests(environment: dict[str, str], words: list[str], *, keep: bool) -> int:
    """All that need servers and end none for others; the status. They give way to the fault tests, which
    mostly wait, and measure rates when they do not.
    """
    with stack(environment, keep=keep, fresh=False) as settings:
        with_stack = environment | settings
        status = pytest(with_stack, *SHARED, *SIDE_BY_SIDE, *words, niceness=GIVE_WAY)
        with ThreadPoolExecutor(1) as beside:
            others = beside.submit(other_sdks)
            status = pytest(with_stack, *PRODUCERS, *words, niceness=GIVE_WAY) or status
            status = others.result() or status
        left = [f"--ignore={file}" for file in PRODUCERS]
        return pytest(with_stack, ALONE, *left, *words, niceness=GIVE_WAY) or status


def fault_tests(environment: dict[str, str], words: list[str], *, keep: bool) -> int:
    """The fault tests on a stack of their own, in their short form; the status. What they say goes to
    ``FAULTS_LOG``: between the lines of the others nobody could read it.
    """
    environment = {
        name: value for name, value in environment.items() if not ONE_PORT.fullmatch(name)
    }
    environment |= FAULTS_FOLDER | {PORT_BASE: str(int(environment[PORT_BASE]) + FAULTS_PORTS_ON)}
    FAULTS_LOG.parent.mkdir(exist_ok=True)
    print(f"{FAULTS} runs beside, on a second stack; it writes {FAULTS_LOG}", file=sys.stderr)
    with FAULTS_LOG.open("wb") as log, stack(environment, keep=keep, log=log) as settings:
        return pytest(environment | settings, FAULTS, *words, log=log)


def prepare_other_sdks() -> None:
    """The packages of Node.js, where there is one: tests of the SDK on servers need them, too."""
    if not tools.lacking("node"):
        node_modules(tools.NODE_SDK)


def other_sdks() -> int:
    """The SDKs that are not Python's, each with its own tool; the status of the first that fails. What
    they say is shown when they end.
    """
    status = 0
    for tool, (command, folder) in SDKS.items():
        if is_left_out(tool, f"sdk/{folder}: not tested"):
            status = status or int(tool in tools.required())
            continue
        if tool == "node":
            node_modules(tools.NODE_SDK)
        done = subprocess.run(
            command, cwd=ROOT / "sdk" / folder, capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr if done.returncode else summary(done.stdout)
        print(f"sdk/{folder}: {' '.join(command)}\n{said}", file=sys.stderr)
        status = status or done.returncode
    return status


def summary(said: str) -> str:
    """How many tests passed, as Node.js and Go say it."""
    lines = said.splitlines()
    return "\n".join(line for line in lines if re.match(r"# (tests|pass|skipped) |ok  \t", line))


def is_left_out(tool: str, said: str) -> bool:
    """Whether a tool is lacking; what that means is said."""
    why = tools.lacking(tool)
    if why:
        print(f"{said}: {why}", file=sys.stderr)
    return bool(why)


def say_tools() -> int:
    """Print the tools that are here, comma separated, and on stderr what is left out without the others."""
    print(",".join(tool for tool in tools.TOOLS if not is_left_out(tool, f"without {tool}")))
    return 0


def node_modules(at: Path) -> None:
    """Install the packages that the lock file names, if they are missing or older; without npm they stay."""
    installed = at / "node_modules" / ".package-lock.json"
    locked_at = (at / "package-lock.json").stat().st_mtime
    if installed.is_file() and installed.stat().st_mtime >= locked_at:
        return
    if shutil.which("npm") is not None:
        subprocess.run(["npm", "ci", "--ignore-scripts", "--loglevel=error"], cwd=at, check=True)


def vet() -> int:
    """gofmt and go vet, where there is a Go that is new enough."""
    at = ROOT / "sdk" / "go"
    if is_left_out("go", "sdk/go: not vetted"):
        return int("go" in tools.required())
    listed = subprocess.run(
        ["gofmt", "-l", "."], cwd=at, capture_output=True, text=True, check=True
    )
    print(listed.stdout, end="")
    vetted = subprocess.run(["go", "vet", "./..."], cwd=at, check=False).returncode
    return vetted or (1 if listed.stdout else 0)


@contextmanager
def coming_up(environment: dict[str, str]) -> Iterator[None]:
    """The stack comes up while the block runs, and says how far it is; ``stack`` tries again."""
    print("the stack comes up beside the tests that need no server", file=sys.stderr)
    subprocess.run([*STACK, "clean"], env=environment, check=True)
    coming = subprocess.Popen([*STACK, "up"], env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    except BaseException:
        coming.terminate()
        raise
    finally:
        coming.wait()


@contextmanager
def stack(
    environment: dict[str, str], *, keep: bool, fresh: bool = True, log: IO[bytes] | None = None
) -> Iterator[dict[str, str]]:
    """A stack that is up, and the settings that reach it; its progress goes to stderr or ``log``."""
    if fresh:
        subprocess.run([*STACK, "clean"], env=environment, check=True, stderr=log)
    try:
        subprocess.run(
            [*STACK, "up"], env=environment, check=True, stdout=subprocess.DEVNULL, stderr=log
        )
        path = subprocess.run(
            [*STACK, "env", "--path"], env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        yield {"AUDIT_ENV_FILE": path, **dict(line.split("=", 1) for line in lines if "=" in line)}
    finally:
        if not keep:
            subprocess.run([*STACK, "clean"], env=environment, check=False, stderr=log)


def pytest(
    environment: dict[str, str], *words: str, log: IO[bytes] | None = None, niceness: int = 0
) -> int:
    """One run; its exit status."""
    command = ["nice", "-n", str(niceness), sys.executable, "-m", "pytest", "-q", "--durations=8"]
    command += words
    environment = {**environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=False, stdout=log, stderr=log
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
