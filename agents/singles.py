"""Where reading stands of the topics that travel record by record: changelogs of tables, and commands.

Faust (0.15.3) keeps no record of what a fetch took that nobody was given: the guard that should stop a
fetch while recovery seeks does nothing (issue #596). A record that such a fetch took of a changelog
was lost to recovery, which then waited for it for ever, and the worker with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from faust.types import TP


class SinglePositions:
    """The next offset to hand over, by partition."""

    def __init__(self) -> None:
        self._next: dict[TP, int] = {}
        self.seeks = 0  # a fetch under way when it changed may have taken what lay elsewhere

    def sought(self, positions: Mapping[TP, int]) -> None:
        """Reading goes on here. Called before the client seeks, and again after it: a fetch of the time
        between has its records from either place.
        """
        self._next.update(positions)
        self.seeks += 1

    def is_next(self, tp: TP, offset: int) -> bool:
        """Whether a record is one that was not handed over yet."""
        return offset >= self._next.get(tp, 0)

    def handed_over(self, tp: TP, offset: int) -> None:
        """The record at this offset was."""
        self._next[tp] = offset + 1

    def let_go(self, partitions: Iterable[TP]) -> None:
        """They are not ours any more; whoever has them again seeks."""
        for tp in partitions:
            self._next.pop(tp, None)

    def partitions(self) -> list[TP]:
        """Those that are ours, and were sought."""
        return list(self._next)

    def next_of(self, tp: TP) -> int | None:
        """From where it is to be fetched if what was fetched cannot be given; None: it is not ours any more."""
        return self._next.get(tp)
