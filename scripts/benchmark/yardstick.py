"""How fast this machine is beside the one of the bounds: three calls of the standard library that
spend their time in compiled code and in the interpreter, timed there and here.

A bound in microseconds holds for one machine. With the factor a reader can tell a slow machine from
a slow worker; the bound itself is checked against what was measured.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import timeit
from collections.abc import Callable, Mapping

_KEY = b"k" * 32
_DATA = b"x" * 30
_CALLS = 20_000
_ROUNDS = 7

# us per call on the machine of the 45 us, and the same call.
_CALLS_OF: Mapping[str, tuple[float, Callable[[], bytes]]] = {
    "keyed BLAKE2b-256 of 30 bytes": (
        0.5,
        lambda: hashlib.blake2b(_DATA, key=_KEY, digest_size=32).digest(),
    ),
    "SHA-256 of 30 bytes": (0.3, lambda: hashlib.sha256(_DATA).digest()),
    "HMAC-SHA-256 of 30 bytes": (1.4, lambda: hmac.digest(_KEY, _DATA, "sha256")),
}


def yardsticks() -> dict[str, float]:
    """us per call, the best of a few rounds; ``machine_factor``: how many times longer than there, as
    the geometric mean of the three.
    """
    found = {
        name: min(timeit.repeat(call, number=_CALLS, repeat=_ROUNDS)) / _CALLS * 1e6
        for name, (_there, call) in _CALLS_OF.items()
    }
    ratios = [found[name] / there for name, (there, _call) in _CALLS_OF.items()]
    return {**found, "machine_factor": math.prod(ratios) ** (1 / len(ratios))}
