"""Writes ``artifacts.lock``: for whoever raises a version in ``audit_stack/catalogue.py``.

Run ``python infra/local/lock.py``; the result is reviewed like any other change.
"""

import tempfile
from pathlib import Path

from audit_stack.catalogue import LOCK_FILE, MAVEN_REQUESTS, WHEEL_REQUESTS, Artifact
from audit_stack.maven import resolve
from audit_stack.wheel import pin_wheels

HEADER = """\
# Written by infra/local/lock.py. Columns: program, coordinate (of Maven:
# group:artifact:packaging[:classifier]:version; of PyPI: distribution==version, a line per
# platform), size in bytes, SHA-256.
"""


def main() -> None:
    """Resolve every request and write what it resolves to."""
    pinned: dict[str, list[Artifact]] = {}
    with tempfile.TemporaryDirectory(prefix="audit-lock-") as scratch:
        for name, coordinates in MAVEN_REQUESTS.items():
            pinned[name] = resolve(coordinates, Path(scratch))
        for name, (distribution, version) in WHEEL_REQUESTS.items():
            pinned[name] = pin_wheels(distribution, version, Path(scratch))
    lines = [
        f"{name} {artifact.coordinate} {artifact.size_bytes} {artifact.sha256}\n"
        for name, artifacts in pinned.items()
        for artifact in artifacts
    ]
    LOCK_FILE.write_text(HEADER + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
