"""A sampling profiler of the main thread: where CPU time goes, without slowing what it watches.

The standard library's cProfile costs more per call than most of the calls here. A sample is taken
every millisecond (of real time: the kernel counts CPU time in steps of four); waiting, and uvloop's
own work, show as the event loop's line. Compiled code counts for the Python line that called it.
"""

from __future__ import annotations

import linecache
import signal
from collections import Counter
from types import FrameType

_EVERY_S = 0.001


class Sampler:
    """``start`` and ``stop`` once each, in the main thread."""

    def __init__(self) -> None:
        self._lines: Counter[tuple[str, str, int]] = Counter()
        self._functions: Counter[tuple[str, str]] = Counter()
        self._samples = 0

    def start(self) -> None:
        """Begin to sample."""
        signal.signal(signal.SIGALRM, self._sample)
        signal.setitimer(signal.ITIMER_REAL, _EVERY_S, _EVERY_S)

    def stop(self) -> list[str]:
        """End, and say what was found: the lines of a text, the most costly first."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        total = self._samples or 1
        text = [f"{self._samples} samples, one per millisecond", "", "share  line (self)"]
        for (file, name, line), count in self._lines.most_common(45):
            source = linecache.getline(file, line or 0).strip()[:70]
            text.append(f"{count / total:6.1%} {_short(file)}:{line} {name}  {source}")
        text += ["", "share  function (with what it calls)"]
        for (file, name), count in self._functions.most_common(45):
            text.append(f"{count / total:6.1%} {_short(file)} {name}")
        return text

    def _sample(self, _signal: int, frame: FrameType | None) -> None:
        self._samples += 1
        if frame is None:
            return
        code = frame.f_code
        self._lines[code.co_filename, code.co_qualname, frame.f_lineno] += 1
        seen = set()
        while frame is not None:
            code = frame.f_code
            seen.add((code.co_filename, code.co_qualname))
            frame = frame.f_back
        self._functions.update(seen)


def _short(file: str) -> str:
    parts = file.split("/")
    if "site-packages" in parts:
        return "/".join(parts[parts.index("site-packages") + 1 :])
    return "/".join(parts[-3:])
