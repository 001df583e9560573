"""The folders of a spool, one per process, each held by a lock: one whose lock is free is of a process
that is gone.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from audit_sdk.errors import AuditConfigurationError

_IN_USE_S: Final = 1.0


def make(folder: Path) -> int:
    """Make a folder and hold its lock. A process that recovers may take it for one that is left behind,
    between the two, and remove it: then it is made again.

    Raises:
        AuditConfigurationError: It cannot be made, or another process has it.
    """
    until = time.monotonic() + _IN_USE_S
    while True:
        try:
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            lock = hold(folder)
        except OSError as error:
            raise cannot_be_written(folder, error) from None
        if lock is not None:
            return lock
        if time.monotonic() > until:
            raise AuditConfigurationError(f"spool folder {folder} is in use")
        time.sleep(0.01)


def cannot_be_written(folder: Path, error: OSError) -> AuditConfigurationError:
    return AuditConfigurationError(f"spool_dir {folder.parent} cannot be written: {error.strerror}")


def hold(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock until it is closed; None: another process has it, or
    has removed the folder. Raises ``OSError``.
    """
    file = folder / "lock"
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), file.stat()):
            return lock
    except OSError:
        pass  # held, or gone between the two
    os.close(lock)
    return None


def leave(folder: Path, lock: int) -> None:
    """Give a folder's lock up; what is empty goes."""
    (folder / "lock").unlink(missing_ok=True)
    os.close(lock)
    with suppress(OSError):  # not empty, or another process is quicker
        folder.rmdir()
