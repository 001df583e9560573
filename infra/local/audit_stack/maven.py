"""Downloads from Maven, checked byte for byte against the lock file.

A file whose size or SHA-256 differs from the pinned one never leaves the temporary folder.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from jgo.maven import Artifact as MavenArtifact
from jgo.maven import Dependency, MavenContext, PythonResolver

from audit_stack.catalogue import Artifact
from audit_stack.errors import StackError

PARALLEL_DOWNLOADS = 6
ATTEMPTS = 4
NETWORK_TIMEOUT_S = 60
REPOSITORY_VARIABLE = "AUDIT_MAVEN_REPOSITORY"

Received = Callable[[int], None]


def download_all(
    artifacts: tuple[Artifact, ...], target: Path, scratch: Path, received: Received
) -> None:
    """Place every artifact in ``target``, complete and verified.

    Args:
        artifacts: What to download.
        target: An existing folder.
        scratch: A folder for partial files, on the same file system.
        received: Called with each number of bytes that arrived; from several threads.

    Raises:
        StackError: An artifact cannot be had, or is not the pinned one.
    """
    context = _context(scratch, received)

    def download(artifact: Artifact) -> None:
        shutil.move(_download(context, artifact), target / artifact.file_name)

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        for done in [pool.submit(download, artifact) for artifact in artifacts]:
            done.result()


def resolve(coordinates: tuple[str, ...], scratch: Path) -> list[Artifact]:
    """Resolve coordinates and all that they need at run time; used to write the lock file."""
    context = _context(scratch, lambda _: None)
    # raw: a dependency's own dependencyManagement must not bind its siblings; without it
    # log4j's POM would put kafka-clients 3.9.1 beside a 4.1.1 broker.
    requests = [
        Dependency(_artifact(context, coordinate), scope="compile", raw=True)
        for coordinate in coordinates
    ]
    if all(request.artifact.packaging == "jar" for request in requests):
        inputs, transitive = context.resolver.resolve(requests)
    else:
        inputs, transitive = requests, []
    resolved = []
    for dependency in [*inputs, *transitive]:
        found = dependency.artifact
        path = found.resolve()
        parts = [found.groupId, found.artifactId, found.packaging, found.classifier, found.version]
        coordinate = ":".join(part for part in parts if part)
        resolved.append(Artifact(coordinate, path.stat().st_size, sha256_of(path)))
    return sorted(resolved, key=lambda artifact: artifact.coordinate)


def _download(context: MavenContext, artifact: Artifact) -> Path:
    for attempt in range(ATTEMPTS):
        try:
            path = _artifact(context, artifact.coordinate).resolve()
        except (OSError, RuntimeError) as error:
            _forget(context, artifact)
            if attempt + 1 == ATTEMPTS:
                message = f"cannot download {artifact.coordinate}: {error}"
                raise StackError(message) from error
            time.sleep(2**attempt)
            continue
        if path.stat().st_size == artifact.size_bytes and sha256_of(path) == artifact.sha256:
            return path
        _forget(context, artifact)
    message = (
        f"{artifact.coordinate} is not the file pinned in artifacts.lock: the download was "
        f"altered or cut short {ATTEMPTS} times"
    )
    raise StackError(message)


def _artifact(context: MavenContext, coordinate: str) -> MavenArtifact:
    group, name, packaging, classifier, version = Artifact(coordinate, 0, "").parts
    component = context.project(group, name).at_version(version)
    return component.artifact(classifier=classifier, packaging=packaging)


def _context(scratch: Path, received: Received) -> MavenContext:
    @contextmanager
    def report(_file_name: str, _size_bytes: int) -> Iterator[Received]:
        yield received

    mirror = os.environ.get(REPOSITORY_VARIABLE)
    return MavenContext(
        resolver=PythonResolver(progress_callback=report),
        repo_cache=scratch,
        remote_repos={"central": mirror.rstrip("/")} if mirror else None,
        timeout=NETWORK_TIMEOUT_S,
    )


def _forget(context: MavenContext, artifact: Artifact) -> None:
    group, name, _, _, version = artifact.parts
    folder = context.repo_cache.joinpath(*group.split("."), name, version)
    (folder / artifact.file_name).unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
