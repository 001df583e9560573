"""How a long download shows itself: moving bars on a terminal, plain lines elsewhere.

All of it goes to standard error, so that standard output holds nothing but results.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

MEGABYTE = 1_000_000


class DownloadProgress(Protocol):
    """Where a download tells how far it is; may be called from any thread."""

    def begin(self, title: str, size_bytes: int) -> None:
        """Announce a program."""

    def advance(self, title: str, received_bytes: int) -> None:
        """Count bytes as received."""

    def finish(self, title: str) -> None:
        """Tell that the program is in the cache."""


class Lines:
    """One line per program, for logs and CI."""

    def __init__(self) -> None:
        self._began_at: dict[str, float] = {}

    def begin(self, title: str, size_bytes: int) -> None:
        """Announce a program."""
        self._began_at[title] = time.monotonic()
        say(f"fetching {title}: {megabytes(size_bytes)}")

    def advance(self, title: str, received_bytes: int) -> None:
        """Stay silent: a log has no use for a moving bar."""

    def finish(self, title: str) -> None:
        """Tell that the program is in the cache."""
        say(f"fetched {title} in {time.monotonic() - self._began_at[title]:.0f} s")


class Bars:
    """A bar per program, for a terminal."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def begin(self, title: str, size_bytes: int) -> None:
        """Add a bar."""
        self._tasks[title] = self._bars.add_task(title, total=size_bytes)

    def advance(self, title: str, received_bytes: int) -> None:
        """Move the bar."""
        self._bars.advance(self._tasks[title], received_bytes)

    def finish(self, title: str) -> None:
        """Fill the bar."""
        task = self._tasks[title]
        total = self._bars.tasks[task].total
        self._bars.update(task, completed=total)


@contextmanager
def download_progress() -> Iterator[DownloadProgress]:
    """Show progress in the way that fits standard error."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    columns = (TextColumn("{task.description:<40}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield Bars(bars)


def say(text: str) -> None:
    """Print a message for a person."""
    sys.stderr.write(f"{text}\n")  # one write, so that lines of two threads never mix
    sys.stderr.flush()


def megabytes(size_bytes: int) -> str:
    """Write a size the way people read it."""
    return f"{max(1, round(size_bytes / MEGABYTE))} MB"
