"""What becomes of bad records: letters acknowledged before the ledger moves, and rotten partitions held."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from pipeline.domain.errors import LetterTooLarge
from pipeline.domain.logs import LogName
from pipeline.domain.records import DeadLetter
from pipeline.logging import log_event
from pipeline.metrics import Metrics
from sinks.base import PartitionControl, PublishDeadLetters, ReusedIds
from sinks.flight import DeliveryLimits, Flight, Lane, any_of
from sinks.outage import NoLongerWanted, Outages

log = logging.getLogger(__name__)


class Burial:
    """Publishes dead letters through outages. ``revoke`` abandons what is in flight for a log."""

    def __init__(
        self,
        publish: PublishDeadLetters,
        control: PartitionControl,
        outages: Outages,
        limits: DeliveryLimits,
        metrics: Metrics,
        revoke: Callable[[str, int], None],
    ) -> None:
        self._publish = publish
        self._control = control
        self._outages = outages
        self._limits = limits
        self._metrics = metrics
        self._revoke = revoke

    async def bury_prepared(self, flights: Sequence[Flight]) -> bool:
        """Publish the dead letters of prepared batches; false if every lane was revoked first. A log of
        which one cannot be kept is cut there: it stops once what is before is in the ledger.
        """
        while True:
            letters = [
                letter for flight in flights if flight.prepared for letter in flight.prepared.dead
            ]
            try:
                return await self._bury([flight.lane for flight in flights], letters)
            except LetterTooLarge as found:
                self._cut(flights, found)

    def _cut(self, flights: Sequence[Flight], found: LetterTooLarge) -> None:
        mine = [flight for flight in flights if str(flight.lane.head.name) == found.log]
        if not mine:
            raise found
        for flight in mine:
            flight.lane.halt, flight.lane.halt_at = found, found.offset
            flight.cut(found)
        if mine[0].lane.head.next_offset >= found.offset:  # nothing is before it
            self.stop(mine[0].lane.head.name, str(found))

    async def _bury(self, lanes: Sequence[Lane], letters: Sequence[DeadLetter]) -> bool:
        if not letters:
            return True
        try:
            await self._outages.through(partial(self._publish, letters), wanted=any_of(lanes))
        except NoLongerWanted:
            return False
        for topic in {letter.topic for letter in letters}:
            reasons = [letter.reason for letter in letters if letter.topic == topic]
            self._metrics.dead_lettered(topic, reasons)
        return True

    async def bury_reused(
        self, lanes: Sequence[Lane], flights: Sequence[Flight], reused: ReusedIds
    ) -> bool:
        """Events with reused ids leave their batches as dead letters; false as for
        ``bury_prepared``.
        """
        letters: list[DeadLetter] = []
        found: list[tuple[Flight, int]] = []
        for flight in flights:
            if flight.prepared is not None and flight.prepared.name in reused.events:
                mine = flight.take_reused(reused.events[flight.prepared.name])
                letters += mine
                found.append((flight, len(mine)))
        while True:
            try:
                if not await self._bury(lanes, letters):
                    return False
                break
            except LetterTooLarge as large:
                self._cut(flights, large)
                letters = [letter for letter in letters if not _is_beyond(letter, large)]
        for flight, dead in found:  # their records were counted when they were prepared
            await self.hold_if_rotten(flight, records=0, dead=dead)
        return True

    async def hold_if_rotten(self, flight: Flight, *, records: int, dead: int) -> None:
        """Pause a partition of which too many records are bad, until a person has looked."""
        if not flight.lane.is_rotten(records, dead, self._limits) or flight.lane.halt is not None:
            return
        why = f"more than {self._limits.dead_letter_ratio:.0%} of the records are dead letters"
        pause = partial(self._control.pause, flight.batch.topic, flight.batch.partition, why)
        with suppress(NoLongerWanted):
            await self._outages.through(pause, wanted=any_of([flight.lane]))

    def stop(self, name: LogName, why: str) -> None:
        """Nothing of a log goes on until a person has acted."""
        self._revoke(name.topic, name.partition)
        log_event(log, "log_stopped", level=logging.ERROR, log=str(name), why=why)
        self._control.stop(name.topic, name.partition, why)


def _is_beyond(letter: DeadLetter, large: LetterTooLarge) -> bool:
    name = str(LogName(letter.topic, letter.partition, letter.epoch))
    return name == large.log and letter.record.offset >= large.offset
