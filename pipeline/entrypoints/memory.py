"""The worker's memory: cycles are collected by the clock, and what is free goes back to the system."""

from __future__ import annotations

import asyncio
import ctypes
import gc

_M_ARENA_MAX = -8
_ARENAS = 2
_GC_FRESH_OBJECTS = 200_000
_TIDY_EVERY_S = 10.0
_WHOLE_EVERY = 6  # of those times


def configure_memory() -> None:
    """Collect by the clock instead of by count, and let threads share the allocator's pools.

    Events are trees without cycles: reference counts free them. The collector only walks through what
    is in flight, a quarter of the worker's CPU with the default thresholds, a twentieth with 20,000
    [measured]. What is in flight has fewer objects than this, so that it waits for ``keep_tidy``.
    One pool for each thread would keep what a burst has left behind.
    """
    gc.set_threshold(_GC_FRESH_OBJECTS, 10, 10)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; source: mallopt(3)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


def keep_for_good() -> None:
    """What is there now stays until the end and is not walked through again."""
    gc.collect()
    gc.freeze()


async def keep_tidy() -> None:
    """Until cancelled: collect cycles, and give free pages back.

    botocore makes a parser that refers to itself for each call, and a failed call leaves its traceback:
    by count alone they stay until there are 200,000 of them. After an outage the allocator keeps what
    the catch-up took [measured: 2 to 30 MB each time, 464 MB after 25 outages; 331 with all of it every ten seconds].

    What is young is looked at every ten seconds, which takes milliseconds. Everything, caches too, is
    once a minute: events wait meanwhile, too few to show in the 99th percentile.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; source: malloc_trim(3)
    while True:
        for _ in range(_WHOLE_EVERY):
            await asyncio.sleep(_TIDY_EVERY_S)
            gc.collect(1)
        gc.collect()
        if trim is not None:
            trim(0)
