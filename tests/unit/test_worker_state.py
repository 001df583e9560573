"""What ``/readyz`` calls a follower that lags: one that holds the newest leaves back does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from pipeline.entrypoints.worker_state import worker_state
from sinks.progress import FollowerStatus, LogStatus

LAGGING_S = 25.0


@dataclass
class Standing:
    """A follower that says how it is."""

    lag_s: float = 0.0
    lag_records: int = 0
    unavailable: str = ""
    alert: str = ""

    def status(self) -> FollowerStatus:
        log = LogStatus(
            1, "t/0/1", 5, 5 + self.lag_records, self.lag_records, self.lag_s, self.alert
        )
        return FollowerStatus("archive", 0, 0, self.unavailable, (log,))


class Nothing:
    """Of the worker's other parts what the page asks."""

    was_assigned = True
    waiting_for: frozenset[str] = frozenset()

    def places(self) -> dict[Any, Any]:
        return {}


@pytest.mark.parametrize(
    ("follower", "lagging"),
    [
        (Standing(), False),
        (Standing(lag_s=9.0, lag_records=40), False),  # held back until an object is due
        (Standing(lag_s=25.1, lag_records=1), True),
        (Standing(lag_s=0.1, lag_records=1, unavailable="s3"), True),
        (Standing(alert="leaves 0 to 9 differ"), True),
    ],
)
def test_a_follower_lags_that_is_late_or_waits_or_stopped(
    follower: Standing, lagging: bool
) -> None:
    nothing = cast("Any", Nothing())

    state = worker_state(nothing, nothing, [cast("Any", follower)], lagging_s=LAGGING_S)

    assert [found.lagging for found in state.followers] == [lagging]
    assert state.ready
