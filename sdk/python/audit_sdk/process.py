"""What happens to the process: its clients are closed at exit and on SIGTERM, and begin anew after a fork."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import weakref
from types import FrameType
from typing import Final, Protocol

_AFTER_ALL_OTHERS: Final = -100  # of multiprocessing's finalizers: each may still record an event


class Client(Protocol):
    """What is told."""

    def close(self) -> int: ...

    def after_fork(self) -> None: ...


_OPEN: Final[weakref.WeakSet[Client]] = weakref.WeakSet()
_watched = False


def watch(client: Client) -> None:
    """Tell a client, until it is forgotten."""
    global _watched  # noqa: PLW0603 - handlers of a process are set once
    _OPEN.add(client)
    if _watched:
        return
    _watched = True
    atexit.register(_close_all)
    os.register_at_fork(after_in_child=_after_fork)
    on_main_thread = threading.current_thread() is threading.main_thread()
    if on_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)  # a handler of the application's own stays


def forget(client: Client) -> None:
    """It is closed."""
    _OPEN.discard(client)


def started() -> None:
    """A client of this process has its first event. A child of multiprocessing ends without ``atexit``,
    and forgets at its start what its parent has registered: what it does call is registered here.
    """
    loaded = sys.modules.get("multiprocessing")
    if loaded is not None and loaded.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _close_all, exitpriority=_AFTER_ALL_OTHERS)


def _close_all() -> None:
    for client in list(_OPEN):
        client.close()


def _after_fork() -> None:
    for client in list(_OPEN):
        client.after_fork()


def _terminated(_number: int, _frame: FrameType | None) -> None:
    """The main thread may be in the middle of a call and hold its lock: it goes on meanwhile."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the second one ends at once

    def end() -> None:
        _close_all()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, name="audit-sdk-exit").start()
