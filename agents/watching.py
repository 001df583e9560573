"""Looks at the assigned partitions from time to time: what changed without a record saying so.

A person lifts a pause or mends what stopped a partition; a topic is replaced; the database is rolled
back while some partitions have nothing new. Each loop runs until cancelled; an outage is waited for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from faust.types import TP

from agents.places import Operators, Topics, Waits
from agents.positions import Positions
from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.records import LogHead
from pipeline.logging import log_event
from pipeline.metrics import Metrics
from sinks.delivery import Delivery
from sinks.follower import Follower

log = logging.getLogger(__name__)

BROKER = "kafka"


class Watch:
    """The loops; the worker runs each as a task of its own.

    ``delivery.waiting_for`` names the servers that intake waits for, as ``/readyz`` shows them.
    """

    def __init__(
        self,
        positions: Positions,
        followers: Sequence[Follower],
        operators: Operators,
        topics: Topics,
        waits: Waits,
        metrics: Metrics,
        *,
        delivery: Delivery,
        crash: Callable[[BaseException], None],
    ) -> None:
        self._positions = positions
        self._followers = followers
        self._operators = operators
        self._topics = topics
        self._waits = waits
        self._metrics = metrics
        self._delivery = delivery
        self._crash = crash

    async def partitions(self) -> None:
        """Measure lags, try stopped partitions again, lift pauses that a person resumed."""
        while True:
            await asyncio.sleep(self._waits.look_every_s)
            self._measure()
            self._try_stopped_again()
            held = [tp for tp, place in self._positions.places().items() if place.paused]
            if not held:
                continue
            try:
                still = {(pause.topic, pause.partition) for pause in await self._operators.pauses()}
            except Unavailable:
                continue
            for tp in held:
                if tp not in still:
                    self._positions.resume(tp)

    async def topics(self) -> None:
        """Place anew what is read of a topic that was replaced; notice a broker that is away.

        A fetch names its topic by name alone: records of the new topic that stand beyond the position
        are read as if they followed. A new log reads all of them again; they are duplicates there.
        Fetching itself never fails while the broker is away: it waits, and says nothing.
        """
        down_since: float | None = None
        while True:
            await asyncio.sleep(self._waits.stopped_again_s)
            try:
                await self._place_replaced()
                await self._ask_ends()
            except Unavailable as outage:
                down_since = self._waits_for(outage, down_since)
            else:
                if down_since is not None:
                    down_since = None
                    self._delivery.waiting_for.discard(BROKER)
                    log_event(log, "intake_goes_on", server=BROKER)

    async def _place_replaced(self) -> None:
        """Raises ``Unavailable``."""
        for topic in {tp.topic for tp in self._placed()}:
            try:
                _cluster_id, topic_id = await self._topics.ids(topic)
            except ChainBroken:
                topic_id = ""  # gone; placing says so
            for tp in self._placed():
                if tp.topic == topic and self._positions.places()[tp].topic_id != topic_id:
                    self._positions.place_anew(tp)

    async def _ask_ends(self) -> None:
        """Where the topics end whose partitions are not fetched, or not to their end: the consumer does
        not hear of a partition's end while it stands still, or has records of it that nobody took.

        Raises ``Unavailable``.
        """
        for tp, place in self._positions.places().items():
            if not place.is_read or self._positions.lag(tp) != 0:
                head = place.head
                with suppress(ChainBroken):  # the topic is gone; placing says so
                    place.ends(head, await self._topics.bounds(tp.topic, tp.partition))

    def _waits_for(self, outage: Unavailable, down_since: float | None) -> float:
        """Say that intake waits for the broker; for longer than the limit, end the worker."""
        now = time.monotonic()
        if down_since is None:
            self._metrics.intake_outage(BROKER)
            log_event(log, "intake_waits", level=logging.WARNING, server=BROKER)
        self._delivery.waiting_for.add(BROKER)
        if down_since is not None and now - down_since > self._waits.outage_limit_s:
            self._crash(outage)
        return now if down_since is None else down_since

    async def ledger(self) -> None:
        """Read again what a rolled-back ledger lost, also where no new record shows it."""
        while True:
            await asyncio.sleep(self._waits.stopped_again_s)
            # Before the ledger is asked: it only grows, so it is never behind these unless it lost.
            known = self._placed()
            try:
                held = {row.log_id: row.next_offset for row in await self._operators.heads()}
            except Unavailable:
                continue
            for tp, head in known.items():
                next_offset = held.get(head.log_id, 0)
                if next_offset < head.next_offset and tp in self._placed():
                    log_event(log, "log_read_again", log=str(head.name), next_offset=next_offset)
                    self._positions.reread(tp.topic, tp.partition)

    def _placed(self) -> dict[TP, LogHead]:
        """The partitions that are being read, and where the ledger stood when it was last heard."""
        return {
            tp: place.head
            for tp, place in self._positions.places().items()
            if place.placed and place.head is not None
        }

    def _try_stopped_again(self) -> None:
        """A person may have mended what stopped a partition, by `audit-trail open-epoch` for one."""
        now = time.monotonic()
        for tp, place in self._positions.places().items():
            if place.stopped and now >= place.retry_at:
                place.retry_at = now + self._waits.stopped_again_s
                self._positions.place_anew(tp)

    def _measure(self) -> None:
        for tp, place in self._positions.places().items():
            lag = self._positions.lag(tp)
            if lag is not None:
                self._metrics.consumer_lag(tp.topic, tp.partition, lag)
            if lag == 0:
                self._positions.goes_on(tp)
            if place.is_read or lag == 0:
                place.behind_since = None
            elif lag and place.behind_since is None:
                place.behind_since = time.monotonic()
        self._metrics.ledger(lag_seconds=self._ledger_lag_s())
        for follower in self._followers:
            status = follower.status()
            self._metrics.follower(
                status.sink,
                lag_records=sum(each.lag_records for each in status.logs),
                lag_seconds=max((each.lag_s for each in status.logs), default=0.0),
                held_bytes=status.held_bytes,
            )

    def _ledger_lag_s(self) -> float:
        """Age of the oldest record under way, or, if that is longer, for how long a partition has stood
        still with records left: how old those are, nobody knows who has not fetched them.
        """
        ages = [
            time.monotonic() - place.behind_since
            for place in self._positions.places().values()
            if place.behind_since is not None
        ]
        oldest_ms = self._delivery.oldest_ms()
        if oldest_ms is not None:
            ages.append(time.time() - oldest_ms / 1000)
        return max([0.0, *ages])
