"""The operating system account under which the servers run.

No server ever runs as root: PostgreSQL and Elasticsearch refuse it, and the others
do not need it. Who is not root runs the servers as himself.
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from audit_stack.errors import StackError


class DropArguments(TypedDict, total=False):
    """The keyword arguments of ``subprocess.run`` that change the user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """Who owns the servers' files and processes."""

    name: str
    uid: int
    gid: int
    is_other: bool  # another user than the one who runs this command, who is root then

    def drop_arguments(self) -> DropArguments:
        """Return what makes a child process run as this account."""
        if not self.is_other:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_reach(self, path: Path) -> bool:
        """Tell whether this account may pass through every folder down to ``path``."""
        if not self.is_other:
            return True
        return all(self._may_enter(folder) for folder in [path, *path.parents])

    def own(self, path: Path, mode: int) -> None:
        """Give ``path`` to this account with the permissions ``mode``."""
        path.chmod(mode)
        if self.is_other:
            os.chown(path, self.uid, self.gid)

    def make_folder(self, path: Path, mode: int = 0o700) -> Path:
        """Make the folder ``path``, if missing, as this account's own."""
        path.mkdir(parents=True, exist_ok=True)
        self.own(path, mode)
        return path

    def write_file(self, path: Path, text: str, mode: int = 0o600) -> None:
        """Write a small file that this account may read."""
        path.write_text(text, encoding="utf-8")
        self.own(path, mode)

    def _may_enter(self, folder: Path) -> bool:
        if not folder.exists():
            return True
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def server_account(name: str) -> Account:
    """Return the account for the servers: ``name`` for root, otherwise the caller's own.

    Raises:
        StackError: The account does not exist, or is root itself.
    """
    if os.geteuid() != 0:
        me = pwd.getpwuid(os.geteuid())
        return Account(me.pw_name, me.pw_uid, me.pw_gid, is_other=False)
    try:
        chosen = pwd.getpwnam(name)
    except KeyError:
        message = (
            f"servers do not run as root and the account {name} does not exist: "
            "set AUDIT_STACK_USER to an unprivileged account"
        )
        raise StackError(message) from None
    if chosen.pw_uid == 0:
        message = "servers do not run as root: set AUDIT_STACK_USER to an unprivileged account"
        raise StackError(message)
    return Account(chosen.pw_name, chosen.pw_uid, chosen.pw_gid, is_other=True)
