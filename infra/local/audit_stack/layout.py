"""Where the files of one stack lie.

What belongs to the person who runs the stack (settings, keys, logs) lies in the data
folder; what belongs to the servers lies in one folder that their account can reach.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from audit_stack.account import Account
from audit_stack.errors import StackError

# A UNIX socket's path holds 107 bytes; supervisord and PostgreSQL add up to 30 to the folder.
SOCKET_FOLDER_MAX_BYTES = 75


@dataclass(frozen=True)
class Layout:
    """The paths of one stack."""

    home: Path
    servers: Path  # the servers' own files
    sockets: Path  # a folder with a short path

    @property
    def marker(self) -> Path:
        """Says that the folder is a stack's, so that ``clean`` may delete what is in it."""
        return self.home / ".audit-stack"

    @property
    def lock(self) -> Path:
        """Held by the command that changes the stack."""
        return self.home / ".lock"

    @property
    def env_file(self) -> Path:
        """The settings of the application, written by ``up``."""
        return self.home / "audit.env"

    @property
    def keys(self) -> Path:
        """Keys and passwords, of the invoking user alone."""
        return self.home / "keys"

    @property
    def logs(self) -> Path:
        """One log file per server, and supervisord's."""
        return self.home / "logs"

    @property
    def record(self) -> Path:
        """The settings that the running stack was started with."""
        return self.home / "stack.json"

    @property
    def supervisor_config(self) -> Path:
        """The configuration of supervisord; it holds passwords."""
        return self.home / "supervisord.conf"

    @property
    def supervisor_socket(self) -> Path:
        """Where supervisord takes commands."""
        return self.sockets / "supervisor.sock"

    @property
    def postgres_sockets(self) -> Path:
        """The folder of PostgreSQL's UNIX socket."""
        return self.sockets / "pg"

    def server(self, name: str) -> Path:
        """Return the folder of one server."""
        return self.servers / name

    def log(self, name: str) -> Path:
        """Return the log file of one server."""
        return self.logs / f"{name}.log"


def plan_layout(home: Path, account: Account) -> Layout:
    """Choose the paths of the stack in ``home``; nothing is created."""
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    servers = home / "servers"
    if not account.can_reach(servers):
        # Root's own folders are closed to the account of the servers.
        servers = Path("/var/tmp") / f"audit-stack-{digest}"  # noqa: S108 - ownership is checked
    sockets = servers / "run"
    if len(os.fsencode(sockets)) > SOCKET_FOLDER_MAX_BYTES:
        sockets = Path("/tmp") / f"audit-stack-{digest}"  # noqa: S108 - ownership is checked
    return Layout(home=home, servers=servers, sockets=sockets)


def claim_home(layout: Layout) -> None:
    """Make the data folder and mark it as a stack's.

    Raises:
        StackError: It is in use for something else.
    """
    layout.home.mkdir(parents=True, exist_ok=True)
    if layout.marker.exists():
        return
    if any(layout.home.iterdir()):
        message = f"{layout.home} holds other files: set AUDIT_STACK_DIR to a new folder"
        raise StackError(message)
    layout.marker.touch()


def make_folders(layout: Layout, account: Account) -> None:
    """Make the folders of the stack; those of single servers are made by their module.

    Raises:
        StackError: A folder that others may write to holds somebody else's folder.
    """
    for folder in (layout.servers, layout.sockets):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            message = f"{folder} belongs to somebody else: remove it, or set AUDIT_STACK_DIR"
            raise StackError(message)
        folder.chmod(0o755)
    for folder in (layout.keys, layout.logs):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
    account.make_folder(layout.postgres_sockets, 0o755)


def remove_folders(layout: Layout) -> None:
    """Delete everything that the stack ever wrote; a folder that is no stack's is left alone."""
    if not layout.marker.exists():
        return
    for folder in (layout.sockets, layout.servers, layout.home):
        shutil.rmtree(folder, ignore_errors=True)


def share_program(program: Path, layout: Layout, account: Account) -> Path:
    """Return a path of ``program`` that the servers' account can reach.

    Root's cache is closed to it: then the files are linked (or copied, across file
    systems) into the servers' folder, still owned by root and so unchangeable to it.
    """
    if account.can_reach(program):
        return program
    shared = layout.servers / "programs" / program.name
    if not shared.exists():
        partial = shared.with_name(f".{shared.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(program, partial, symlinks=True, copy_function=_link_or_copy)
        partial.rename(shared)
    return shared


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
