"""What ``/readyz`` shows of a running worker."""

from __future__ import annotations

from collections.abc import Sequence

from agents.positions import Positions
from pipeline.entrypoints.health import FollowerState, PartitionState, WorkerState
from sinks.delivery import Delivery
from sinks.follower import Follower


def worker_state(
    positions: Positions, delivery: Delivery, followers: Sequence[Follower]
) -> WorkerState:
    """The state now; asks no server."""
    partitions = [
        PartitionState(tp.topic, tp.partition, place.head is not None, place.still)
        for tp, place in sorted(positions.places().items())
    ]
    states = []
    for follower in followers:
        status = follower.status()
        states.append(
            FollowerState(
                status.sink,
                sum(each.lag_records for each in status.logs),
                max((each.lag_s for each in status.logs), default=0.0),
                lagging=not status.caught_up,
                stopped_logs=[each.log for each in status.logs if each.alert],
            )
        )
    return WorkerState(
        positions.was_assigned, partitions, states, waiting_for=sorted(delivery.waiting_for)
    )
