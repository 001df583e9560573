"""How long the fault tests are: `make test` runs the short form, `make chaos` the full one."""

from __future__ import annotations

from pathlib import Path

from tests.sizes import FULL

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"

EVENTS = 200_000 if FULL else 20_000
RATE = 2_000  # events a second that are published
KILLS = 10 if FULL else 3
BURST = 30 if FULL else 4  # kills 0.1 to 1 s apart, after the others
PAUSES = 6 if FULL else 2  # a worker stands still for longer than its session
OUTAGE_S = 60.0 if FULL else 10.0
BEFORE_S = 20.0 if FULL else 6.0  # the stores' own rates are measured for so long before it
SESSION_S = 6.0
RSS_MAX_MB = 400
KEPT_MIN = 0.7  # of its rate before, by a store that is not down
