"""What ``/readyz`` shows of a running worker."""

from __future__ import annotations

from collections.abc import Sequence

from agents.positions import Positions
from pipeline.entrypoints.health import FollowerState, PartitionState, WorkerState
from sinks.delivery import Delivery
from sinks.follower import Follower


def worker_state(
    positions: Positions, delivery: Delivery, followers: Sequence[Follower], *, lagging_s: float
) -> WorkerState:
    """The state now; asks no server. A follower lags that waits for a server, has a log that stopped,
    or lacks a leaf older than ``lagging_s``: the archive holds the newest back by design.
    """
    partitions = [
        PartitionState(tp.topic, tp.partition, place.placed, place.still)
        for tp, place in sorted(positions.places().items())
    ]
    states = []
    for follower in followers:
        status = follower.status()
        lag_s = max((each.lag_s for each in status.logs), default=0.0)
        stopped = [each.log for each in status.logs if each.alert]
        states.append(
            FollowerState(
                status.sink,
                sum(each.lag_records for each in status.logs),
                lag_s,
                lagging=bool(status.unavailable or stopped) or lag_s > lagging_s,
                stopped_logs=stopped,
            )
        )
    waiting_for = sorted(delivery.waiting_for | positions.waiting_for)
    return WorkerState(positions.was_assigned, partitions, states, waiting_for=waiting_for)
