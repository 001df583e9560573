"""Build the compiled form of the hot path (`pipeline/native`), where there is a Rust toolchain.

Without one the worker runs the same steps in Python, at a quarter of the speed, and nothing else
changes. Built once per source: the result is kept in the cache, beside the servers. Standard library
only; exits 0 unless a build that was begun fails.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

CRATE = Path(__file__).resolve().parents[1] / "pipeline" / "native"
MODULE = CRATE / "audit_native.abi3.so"
BUILT = CRATE / ".built-key"
LIBRARY = "libaudit_native.dylib" if sys.platform == "darwin" else "libaudit_native.so"
_OLDEST = (1, 88)  # `rust-version` of Cargo.toml


def main() -> int:
    """Build or take from the cache; the exit status."""
    cargo = find_cargo()
    if "--lint" in sys.argv:
        return lint(cargo)
    if os.environ.get("AUDIT_NATIVE") == "0" or cargo is None:
        MODULE.unlink(missing_ok=True)
        say(
            "the worker's hot path stays in Python, at a quarter of the speed:"
            f" install Rust {_OLDEST[0]}.{_OLDEST[1]} or newer (cargo) to have it compiled"
        )
        return 0
    named = key(cargo)
    if MODULE.exists() and BUILT.exists() and BUILT.read_text(encoding="ascii") == named:
        return 0
    folder = cache() / f"native-{named}"
    built = folder / MODULE.name
    if not built.exists():
        say("compiling the worker's hot path (about a minute, 15 MB of crates the first time)")
        target = folder / "target"
        command = [cargo, "build", "--release", "--locked", "--quiet", "--target-dir", str(target)]
        environment = os.environ | {"PYO3_PYTHON": sys.executable}
        if subprocess.run(command, cwd=CRATE, env=environment, check=False).returncode:
            say("cargo failed; AUDIT_NATIVE=0 leaves the compiled form out")
            return 1
        finished = folder / f"{MODULE.name}.{os.getpid()}"
        shutil.copyfile(target / "release" / LIBRARY, finished)
        finished.replace(built)
        shutil.rmtree(target, ignore_errors=True)
    fresh = MODULE.with_suffix(f".{os.getpid()}")
    shutil.copyfile(built, fresh)
    fresh.replace(MODULE)  # never written over: a running worker has it mapped
    BUILT.write_text(named, encoding="ascii")
    return 0


def lint(cargo: str | None) -> int:
    """rustfmt and clippy, where they are."""
    if cargo is None:
        return 0
    target = str(cache() / "native-lint")
    checks = (
        ["fmt", "--check"],
        ["clippy", "--locked", "--quiet", "--target-dir", target, "--", "-D", "warnings"],
    )
    for check in checks:
        if subprocess.run(
            [cargo, check[0], "--version"], capture_output=True, check=False
        ).returncode:
            say(f"cargo {check[0]} is not here: left out")
        elif subprocess.run([cargo, *check], cwd=CRATE, check=False).returncode:
            return 1
    return 0


def find_cargo() -> str | None:
    """A cargo that is new enough, if there is one."""
    cargo = shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo" / "bin"))
    if cargo is None:
        return None
    said = subprocess.run([cargo, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    return cargo if found and (int(found[1]), int(found[2])) >= _OLDEST else None


def cache() -> Path:
    """Where downloads and builds are kept between clones."""
    named = os.environ.get("AUDIT_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "audit-trail"


def key(cargo: str) -> str:
    """What the result depends on: the sources, their dependencies, compiler and machine."""
    digest = hashlib.sha256(platform.platform().encode())
    digest.update(subprocess.run([cargo, "--version"], capture_output=True, check=False).stdout)
    for path in sorted([*CRATE.glob("src/*.rs"), CRATE / "Cargo.toml", CRATE / "Cargo.lock"]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def say(text: str) -> None:
    print(f"audit-trail: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
