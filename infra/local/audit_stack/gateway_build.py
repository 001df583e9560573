"""Builds the S3 gateway from its Go module.

The module's hash is pinned here and its own go.sum pins every dependency, so the same
sources are compiled whether or not the machine asks a checksum database.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from audit_stack.catalogue import GoProgram
from audit_stack.errors import StackError

BINARY = "versitygw"


def build_gateway(program: GoProgram, go: Path, target: Path, scratch: Path) -> None:
    """Place the gateway's binary in ``target``; takes about 80 s on two cores.

    Raises:
        StackError: The module is not the pinned one, or does not compile.
    """
    environment = os.environ | {
        # A module and build cache of its own can be deleted afterwards: it is 640 MB.
        "GOMODCACHE": str(scratch / "modules"),
        "GOCACHE": str(scratch / "objects"),
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }
    wanted = f"{program.module}@v{program.version}"
    answer = _run([str(go), "mod", "download", "-json", wanted], scratch, environment)
    module = json.loads(answer)
    if module["Sum"] != program.module_hash:
        message = f"{wanted} is not the pinned source: {module['Sum']}"
        raise StackError(message)
    # Go builds no main module inside its module cache.
    source = scratch / "source"
    shutil.copytree(module["Dir"], source)
    build = ["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w"]
    _run([str(go), *build, "-o", str(target / BINARY), program.package], source, environment)


def _run(command: list[str], directory: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        tail = "\n".join(done.stderr.splitlines()[-15:])
        message = f"{' '.join(command[:3])} failed:\n{tail}"
        raise StackError(message)
    return done.stdout
