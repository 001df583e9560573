"""What a command shows: data on stdout, everything else on stderr.

On a terminal a table has colour and wraps; in a pipe it is plain aligned text, one row a line.
Text from servers may hold anything: control and line characters are shown escaped, so that no
record can move the cursor or forge a row (ASVS 5.0 §16.4.1).
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    from rich.console import Console

STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red", "equal": "green"}
# C0, DEL, C1, line and paragraph separators, and the marks that reorder text (CVE-2021-42574).
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_PROGRESS_LINE_EVERY_S: Final = 5.0

Cell = str | int | float | bool | None
Row = Mapping[str, Cell]


class OutputFormat(StrEnum):
    """How data is written to stdout."""

    TABLE = "table"
    JSON = "json"


class Progress(Protocol):
    """Where long work says how far it is."""

    def advance(self, steps: int = 1) -> None:
        """``steps`` more are done."""
        ...


def show_rows(
    rows: Sequence[Row], columns: Sequence[str], output: OutputFormat, *, empty: str = "nothing"
) -> None:
    """Write a list: every row has all ``columns``; JSON is one array, with all the row's fields."""
    if output is OutputFormat.JSON:
        show_json([dict(row) for row in rows])
    elif not rows:
        say(empty)
    elif sys.stdout.isatty():
        _rich_table(rows, columns)
    else:
        _plain_table(rows, columns)


def show_json(value: object) -> None:
    """One JSON document; ASCII, so that no character of it acts on a terminal."""
    text = json.dumps(value, indent=2, ensure_ascii=True).replace("\x7f", "\\u007f")
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """A message for the person at the keyboard."""
    sys.stderr.write("\n".join(printable(line) for line in text.split("\n")) + "\n")


def suggest(text: str, output: OutputFormat = OutputFormat.TABLE) -> None:
    """What to run next; a script that asked for JSON is not told."""
    if output is OutputFormat.TABLE:
        say(f"next: {text}")


def printable(text: str) -> str:
    """``text`` with everything escaped that a terminal would act on."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Progress]:
    """A bar on stderr if that is a terminal, else a line now and then."""
    if sys.stderr.isatty():
        with _bar(title, total) as bar:
            yield bar
    else:
        lines = _Lines(title, total)
        yield lines
        lines.finish()


class _Lines:
    """Progress for log files: a line every few seconds, and one at the end."""

    def __init__(self, title: str, total: int | None) -> None:
        from time import monotonic

        self._now = monotonic
        self._title = title
        self._of = f" of {total}" if total is not None else ""
        self._done = 0
        self._started = self._said = monotonic()

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        if self._now() - self._said >= _PROGRESS_LINE_EVERY_S:
            self._said = self._now()
            say(f"{self._title}: {self._done}{self._of}")

    def finish(self) -> None:
        took_s = self._now() - self._started
        say(f"{self._title}: {self._done}{self._of} in {took_s:.1f} s")


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with RichProgress(*columns, console=_console(stderr=True)) as bars:
        task = bars.add_task(title, total=total)

        class _Bar:
            def advance(self, steps: int = 1) -> None:
                bars.advance(task, steps)

        yield _Bar()


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _rich_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify=_side(rows, column), overflow="fold")
    for row in rows:
        # ``Text``: a value is never read as markup.
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in _cells(row, columns)))
    _console().print(table)


def _plain_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    lines = [list(columns), *(_cells(row, columns) for row in rows)]
    widths = [max(_width(line[place]) for line in lines) for place in range(len(columns))]
    right = [_side(rows, column) == "right" for column in columns]
    for line in lines:
        padded = [
            " " * (width - _width(cell)) + cell if at_right else cell + " " * (width - _width(cell))
            for cell, width, at_right in zip(line, widths, right, strict=True)
        ]
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def _side(rows: Sequence[Row], column: str) -> Literal["left", "right"]:
    numbers = all(
        isinstance(row.get(column), int | float | None) and not isinstance(row.get(column), bool)
        for row in rows
    )
    return "right" if numbers else "left"


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    return [_cell(row.get(column)) for column in columns]


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"
    return printable(str(value))


def _width(text: str) -> int:
    """Columns on a terminal: wide East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
