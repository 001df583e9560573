"""How a worker comes to its end: by a signal, because it has drained, or by the failure of a part."""

from __future__ import annotations

import asyncio
from typing import Any


class Ending:
    """The first reason to end, from whichever part it comes. A start that is under way is given up."""

    def __init__(self) -> None:
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._starting = asyncio.current_task()  # may wait for a server for as long as it is away

    def now(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
            self._give_up()

    def because(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)
            self._ended.exception()  # nobody waits when the worker ends before it was up
            self._give_up()

    def started(self) -> None:
        """Everything runs."""
        self._starting = None

    def _give_up(self) -> None:
        if self._starting is not None:
            self._starting.cancel()

    async def wait(self) -> None:
        await self._ended

    def watch(self, task: asyncio.Task[Any]) -> None:
        """A part that must run for ever ends the worker when it does not."""

        def ended(done: asyncio.Task[Any]) -> None:
            if not done.cancelled():
                self.because(done.exception() or RuntimeError(f"{done.get_name()} ended"))

        task.add_done_callback(ended)
