"""supervisord: the process that keeps the servers running.

It is reached through a UNIX socket in the stack's folder, so two stacks never meet.
"""

import http.client
import os
import resource
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy, Transport

from audit_stack.account import Account
from audit_stack.credentials import write_private
from audit_stack.errors import StackError
from audit_stack.layout import Layout

ANSWER_TIMEOUT_S = 60.0
LAUNCH_TIMEOUT_S = 15.0
LOG_MAX_BYTES = "20MB"
OPEN_FILES_MAX = 65536
INHERITED = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH")
NO_WAIT = False
# Marks every process of a stack, so that strays of a killed supervisord can be found.
HOME_VARIABLE = "AUDIT_STACK_HOME"


@dataclass(frozen=True)
class Command:
    """How one server is started and stopped."""

    argv: list[str]
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    stop_timeout_s: int = 20
    as_invoker: bool = False  # not as the servers' account


def write_config(layout: Layout, account: Account, commands: dict[str, Command]) -> None:
    """Write supervisord's configuration for the servers ``commands``."""
    head = f"""\
; Written by infra/local/stack.py on every start; changes are lost.
[supervisord]
logfile = {_text(layout.logs / "supervisord.log")}
logfile_maxbytes = {LOG_MAX_BYTES}
logfile_backups = 1
pidfile = {_text(layout.home / "supervisord.pid")}
childlogdir = {_text(layout.logs)}
umask = 077
minfds = {_open_files()}

[unix_http_server]
file = {_text(layout.supervisor_socket)}
chmod = 0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
    if os.geteuid() == 0:
        head = head.replace("umask = 077", "umask = 077\nuser = root")
    programs = [
        _program(name, command, layout, account) for name, command in sorted(commands.items())
    ]
    write_private(layout.supervisor_config, "\n".join([head, *programs]))


def _program(name: str, command: Command, layout: Layout, account: Account) -> str:
    marks = {"HOME": str(command.directory), HOME_VARIABLE: str(layout.home)}
    environment = command.environment | marks
    pairs = ",".join(f'{key}="{_text(value)}"' for key, value in environment.items())
    user = f"user = {account.name}\n" if account.is_other and not command.as_invoker else ""
    return f"""\
[program:{name}]
command = {_text(shlex.join(command.argv))}
directory = {_text(command.directory)}
environment = {pairs}
{user}autostart = false
autorestart = true
startsecs = 2
startretries = 2
stopsignal = {command.stop_signal}
stopwaitsecs = {command.stop_timeout_s}
stopasgroup = false
killasgroup = true
redirect_stderr = true
stdout_logfile = {_text(layout.log(name))}
stdout_logfile_maxbytes = {LOG_MAX_BYTES}
stdout_logfile_backups = 1
"""


def _open_files() -> int:
    """Return how many files the servers may open: all that the machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)


def _text(value: str | Path) -> str:
    """Escape what supervisord would expand.

    Raises:
        StackError: The value cannot be written into its configuration at all.
    """
    text = str(value)
    if any(sign in text for sign in ('"', "\n", " ;")):
        message = f"a path of the stack must not hold quotes or semicolons: {text}"
        raise StackError(message)
    return text.replace("%", "%%")


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _SocketTransport(Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002 - the name is the base class's
        return _SocketConnection(self._path, ANSWER_TIMEOUT_S)


class Supervisor:
    """The supervisord of one stack; connects anew for every question."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def is_running(self) -> bool:
        """Tell whether it answers."""
        try:
            self._ask("getState")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def launch(self) -> None:
        """Start it in the background; returns when it answers."""
        command = ["-m", "supervisor.supervisord", "-c", str(self._layout.supervisor_config)]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *command],
            # Whatever else the caller's environment holds is no business of the servers.
            env={name: os.environ[name] for name in INHERITED if name in os.environ},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        deadline = time.monotonic() + LAUNCH_TIMEOUT_S
        while done.returncode == 0 and time.monotonic() < deadline:
            if self.is_running():
                return
            time.sleep(0.05)
        message = f"supervisord does not start: {done.stderr or done.stdout}"
        raise StackError(message)

    def shut_down(self) -> None:
        """Stop every server and supervisord itself; returns when it is gone."""
        self._ask("stopAllProcesses")
        self._ask("shutdown")
        deadline = time.monotonic() + LAUNCH_TIMEOUT_S
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(0.05)

    def load(self) -> None:
        """Take servers that were added to the configuration."""
        added, _changed, _removed = self._ask("reloadConfig")[0]
        for name in added:
            self._ask("addProcessGroup", name)

    def states(self) -> dict[str, tuple[str, int]]:
        """Return state and process id (0: none) of every configured server."""
        return {
            process["name"]: (process["statename"], process["pid"])
            for process in self._ask("getAllProcessInfo")
        }

    def start(self, name: str) -> None:
        """Start one server without waiting; one that runs already is left alone."""
        try:
            self._ask("startProcess", name, NO_WAIT)
        except Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                message = f"{name} cannot be started: {fault.faultString}"
                raise StackError(message) from None

    def stop(self, name: str, *, wait: bool = True) -> None:
        """Stop one server and keep it stopped."""
        try:
            self._ask("stopProcess", name, wait)
        except Fault as fault:
            if "NOT_RUNNING" not in fault.faultString:
                raise

    # XML-RPC is not typed; every caller names the type that it relies on.
    def _ask(self, method: str, *arguments: Any) -> Any:
        transport = _SocketTransport(self._layout.supervisor_socket)
        with ServerProxy("http://localhost", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)
