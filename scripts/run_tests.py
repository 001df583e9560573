"""`make test` and `make chaos`: a stack of its own, every test on it, and everything down again.

The tests that need no server come first: what is wrong there is known in a minute. Words after the
options go to pytest. Exits with pytest's status.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STACK = [sys.executable, str(ROOT / "infra" / "local" / "stack.py")]
# Beside a stack of `make demo`, never on it: its data are deleted.
FOLDER = {"AUDIT_STACK_DIR": str(ROOT / ".stack-test")}
PORTS = {"AUDIT_STACK_PORT_BASE": "21500"}


def main() -> int:
    """Run the tests; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chaos", action="store_true", help="The fault tests, in their full form.")
    parser.add_argument("--keep", action="store_true", help="Leave the stack up afterwards.")
    options, words = parser.parse_known_args()
    environment = PORTS | dict(os.environ) | FOLDER
    started_at = time.monotonic()
    if options.chaos:
        environment |= {"AUDIT_CHAOS": "full", "AUDIT_STACK_JIT": "full"}
        with stack(environment, keep=options.keep) as settings:
            return pytest(environment | settings, "tests/chaos", *words)
    with fetching(environment):
        status = pytest(environment, "tests/unit", "--numprocesses=logical", *words)
    if status:
        return status
    with stack(environment, keep=options.keep) as settings:
        status = pytest(environment | settings, "tests", "--ignore=tests/unit", *words)
    print(f"all tests in {time.monotonic() - started_at:.0f} s", file=sys.stderr)
    return status


@contextmanager
def fetching(environment: dict[str, str]) -> Iterator[None]:
    """The servers' programs come while the block runs; ``up`` says what did not come, and tries again."""
    print("fetching the servers beside the unit tests, unless they are there", file=sys.stderr)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    coming = subprocess.Popen([*STACK, "fetch"], env=environment, **quiet)
    try:
        yield
        coming.wait()
    finally:
        coming.terminate()
        coming.wait()


@contextmanager
def stack(environment: dict[str, str], *, keep: bool) -> Iterator[dict[str, str]]:
    """A fresh stack, and the settings that reach it."""
    subprocess.run([*STACK, "clean"], env=environment, check=True)
    try:
        subprocess.run([*STACK, "up"], env=environment, check=True, stdout=subprocess.DEVNULL)
        path = subprocess.run(
            [*STACK, "env", "--path"], env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        yield {"AUDIT_ENV_FILE": path, **dict(line.split("=", 1) for line in lines if "=" in line)}
    finally:
        if not keep:
            subprocess.run([*STACK, "clean"], env=environment, check=False)


def pytest(environment: dict[str, str], *words: str) -> int:
    """One run; its exit status."""
    command = [sys.executable, "-m", "pytest", "-q", "--durations=8", *words]
    environment = {**environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
