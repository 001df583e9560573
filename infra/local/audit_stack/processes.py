"""Signals to a server with all its children.

PostgreSQL gives every backend a process group of its own and Elasticsearch runs as child
of its launcher, so the tree of processes is walked instead of trusting one group.
"""

import contextlib
import os
import signal
import time

import psutil

from audit_stack.supervise import HOME_VARIABLE

KILL_TIMEOUT_S = 10.0


def pause_tree(root_pid: int) -> int:
    """Stop the clock of a server (SIGSTOP); returns how many processes stand still.

    Parents are stopped before their children are listed again, so no new child escapes.
    """
    stopped: set[int] = set()
    while True:
        running = [process for process in _tree(root_pid) if process.pid not in stopped]
        if not running:
            return len(stopped)
        for process in running:
            _send(process, signal.SIGSTOP)
            stopped.add(process.pid)


def resume_tree(root_pid: int) -> None:
    """Let a paused server go on (SIGCONT), children first."""
    for process in reversed(_tree(root_pid)):
        _send(process, signal.SIGCONT)


def kill_tree(root_pid: int) -> None:
    """End a server at once (SIGKILL), as a power cut would; returns when all are gone."""
    pause_tree(root_pid)
    processes = _tree(root_pid)
    for process in processes:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(processes, timeout=KILL_TIMEOUT_S)


def is_paused(root_pid: int) -> bool:
    """Tell whether the server stands still."""
    try:
        return psutil.Process(root_pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def memory_bytes(root_pid: int) -> int:
    """Return the resident memory of the server and its children.

    Pages that PostgreSQL's backends share are counted once per backend.
    """
    total = 0
    for process in _tree(root_pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def end_strays(home: str) -> int:
    """End servers whose supervisord died without them; returns how many there were."""
    strays = [process for process in psutil.process_iter() if _belongs(process, home)]
    for process in strays:
        _send(process, signal.SIGCONT)
        _send(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(strays, timeout=KILL_TIMEOUT_S)
    for process in alive:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=KILL_TIMEOUT_S)
    return len(strays)


def wait_until_gone(pid: int, timeout_s: float) -> None:
    """Wait for a process to end."""
    deadline = time.monotonic() + timeout_s
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)


def _belongs(process: psutil.Process, home: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        return bool(process.environ().get(HOME_VARIABLE) == home)
    except psutil.Error:
        return False


def _tree(root_pid: int) -> list[psutil.Process]:
    if not root_pid:  # what supervisord says of a server that is down
        return []
    try:
        root = psutil.Process(root_pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _send(process: psutil.Process, signal_number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal_number)
