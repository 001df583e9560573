"""What the machine must bring along: a JDK, and PostgreSQL or Go where it has them.

What is found is also new enough; what is missing is named with the way to get it.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from audit_stack.errors import StackError

JAVA_MIN = 17
REGISTRY_JAVA_MIN = 21
POSTGRES_MIN = 15
GO_MIN = (1, 25)


def find_java_home(chosen: str, version_min: int) -> Path | None:
    """Return the home of a Java of at least ``version_min``, or None.

    Args:
        chosen: A home that the user named, looked at first; may be empty.
        version_min: The oldest version that will do.
    """
    for home in _java_homes(chosen):
        if _java_version(home) >= version_min:
            return home
    return None


def require_java_home(chosen: str) -> Path:
    """Return the home of the Java for Kafka and Elasticsearch.

    Raises:
        StackError: There is none; the text names what was found.
    """
    home = find_java_home(chosen, JAVA_MIN)
    if home is not None:
        return home
    old = [f"{home} is version {_java_version(home)}" for home in _java_homes(chosen)]
    detail = f" ({'; '.join(old)})" if old else ""
    message = (
        f"Kafka and Elasticsearch need a JDK of version {JAVA_MIN} or newer{detail}: install one "
        "(Debian: apt-get install openjdk-17-jdk-headless) or set AUDIT_STACK_JAVA_HOME"
    )
    raise StackError(message)


def find_postgres_bin(chosen: str, major: int | None) -> Path | None:
    """Return the folder of PostgreSQL's programs, or None when the machine has none.

    Args:
        chosen: A folder that the user named; empty to search.
        major: The version that wrote the present data folder, which no other can open.
    """
    if chosen:
        folder = Path(chosen)
        if postgres_major(folder) < POSTGRES_MIN:
            message = f"AUDIT_STACK_POSTGRES_BIN={chosen} holds no PostgreSQL >= {POSTGRES_MIN}"
            raise StackError(message)
        return folder
    folders = {postgres_major(folder): folder for folder in _postgres_folders()}
    if major is not None:
        return folders.get(major)
    newest = max(folders, default=0)
    return folders[newest] if newest >= POSTGRES_MIN else None


def postgres_major(folder: Path) -> int:
    """Return the major version of the PostgreSQL in ``folder``, 0 when there is none."""
    if not (folder / "initdb").exists():
        return 0
    answer = _output([str(folder / "postgres"), "--version"])
    match = re.search(r"\) (\d+)", answer)
    return int(match.group(1)) if match else 0


def find_go() -> Path | None:
    """Return a Go tool that can build the S3 gateway, or None."""
    path = shutil.which("go")
    if path is None:
        return None
    match = re.search(r"go(\d+)\.(\d+)", _output([path, "version"]))
    if match is None or (int(match.group(1)), int(match.group(2))) < GO_MIN:
        return None
    return Path(path)


def _java_homes(chosen: str) -> Iterator[Path]:
    if chosen:
        yield Path(chosen)
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path).resolve().parent.parent
    yield from sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)


def _java_version(home: Path) -> int:
    """Read the version from the file that every JDK carries; 0 when there is no Java."""
    if not os.access(home / "bin" / "java", os.X_OK):
        return 0
    try:
        release = (home / "release").read_text(encoding="utf-8")
    except OSError:
        return 0
    match = re.search(r'JAVA_VERSION="(?:1\.)?(\d+)', release)
    return int(match.group(1)) if match else 0


def _postgres_folders() -> Iterator[Path]:
    yield from Path("/usr/lib/postgresql").glob("*/bin")
    yield from Path("/opt/homebrew/opt").glob("postgresql@*/bin")
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
