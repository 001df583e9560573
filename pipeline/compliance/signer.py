"""The signer: looks at every log again and again, and has each that grew signed.

One log that is refused, or whose servers are away, delays no other. It holds nothing that matters:
each round begins with what is in the bucket and in the ledger.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic

from pipeline.compliance.log_signer import LogSigner, Outcome, RoundKeys, SignedState
from pipeline.compliance.metrics import SignerMetrics
from pipeline.compliance.signer_ledger import SignableHead, SignerLedger
from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.logs import LogName
from pipeline.logging import log_event
from sinks.s3 import Lock, LockMode

log = logging.getLogger(__name__)

LOGS_AT_ONCE = 4
OVERTAKEN_MAX = 3  # looks in one round at a log that other signers sign, too


@dataclass(slots=True)
class LogState:
    """One log as the last round left it."""

    name: LogName
    size: int = 0  # in the ledger
    signed: int = 0  # under a checkpoint
    refused: str = ""  # why it is not signed
    waits_for: str = ""  # the server that is away
    uncovered_since: float | None = None  # monotonic: since when it has leaves that none covers
    proven: tuple[int, bytes] | None = None  # the last head that was shown to follow, all signed

    def age_s(self, now: float) -> float:
        """For how long it has had leaves that no checkpoint covers."""
        return 0.0 if self.uncovered_since is None else max(now - self.uncovered_since, 0.0)


@dataclass(frozen=True, slots=True)
class Round:
    """What one look at every log did."""

    signed: int = 0
    refused: Sequence[str] = field(default=())
    waiting_for: Sequence[str] = field(default=())


class Signer:
    """Life cycle: ``round`` any number of times, one at a time."""

    def __init__(
        self,
        ledger: SignerLedger,
        log_signer: LogSigner,
        keys: Callable[[], Awaitable[RoundKeys]],
        metrics: SignerMetrics,
        *,
        lock_mode: LockMode,
        retention_days: int,
        now: Callable[[], datetime],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """``retention_days``: of tenants that have none of their own."""
        self._ledger = ledger
        self._log_signer = log_signer
        self._keys = keys
        self._metrics = metrics
        self._lock_mode: LockMode = lock_mode
        self._retention_days = retention_days
        self._now = now
        self._clock = clock
        self.states: dict[LogName, LogState] = {}
        self.last_round: Round | None = None
        self.last_round_at: float | None = None  # monotonic

    async def round(self) -> Round:
        """Look at every log once.

        Raises:
            ConfigurationError: Keys or database are not set up: no log can be signed.
        """
        began = self._clock()
        try:
            done = await self._round(began)
        except Unavailable as error:
            self._metrics.outage(error.what)
            log_event(log, "signer_waits", level=logging.WARNING, server=error.what, why=str(error))
            done = Round(waiting_for=[error.what])
        self.last_round, self.last_round_at = done, self._clock()
        self._metrics.round(self._clock() - began)
        return done

    async def _round(self, began: float) -> Round:
        keys = await self._keys()
        days = max(await self._ledger.longest_retention_days(), self._retention_days)
        lock = Lock(self._lock_mode, self._now() + timedelta(days=days))
        limit = asyncio.Semaphore(LOGS_AT_ONCE)

        async def look(head: SignableHead) -> bool:
            async with limit:
                return await self._look(head, keys, lock, began)

        heads = await self._ledger.heads()
        looked = await asyncio.gather(*(look(head) for head in heads))
        states = [self.states[head.name] for head in heads]
        refused = [str(state.name) for state in states if state.refused]
        self._metrics.refuses(len(refused))
        waiting = sorted({state.waits_for for state in states if state.waits_for})
        return Round(sum(looked), refused, waiting)

    async def _look(self, head: SignableHead, keys: RoundKeys, lock: Lock, began: float) -> bool:
        """Whether a checkpoint of the log was stored."""
        state = self._state(head.name)
        state.size = head.size
        if head.size == 0 or state.proven == (head.size, head.root):
            return False
        state.proven = None
        try:
            done = await self._signed(head, keys, lock)
        except ChainBroken as error:
            self._refuse(state, str(error), began)
            return False
        except Unavailable as error:
            self._wait(state, error, began)
            return False
        if state.refused:
            log_event(log, "log_accepted_again", log=str(head.name), leaves=head.size)
        state.refused = state.waits_for = ""
        state.size, state.signed = done.head.size, done.size
        if done.outcome is Outcome.SIGNED:
            self._metrics.signed(head.name.topic)
            state.uncovered_since = None
        if done.size == done.head.size:
            state.uncovered_since = None
            state.proven = (done.head.size, done.head.root)
        else:
            self._behind(state, began)
        return done.outcome is Outcome.SIGNED

    async def _signed(self, head: SignableHead, keys: RoundKeys, lock: Lock) -> SignedState:
        done = await self._log_signer.sign(head, keys, lock)
        for _ in range(OVERTAKEN_MAX):
            if done.outcome is not Outcome.OVERTAKEN:
                break
            done = await self._log_signer.sign(head, keys, lock)
        return done

    def _refuse(self, state: LogState, why: str, began: float) -> None:
        if state.refused != why:  # once, not every half minute
            log_event(log, "log_refused", level=logging.ERROR, log=str(state.name), why=why)
        state.refused, state.waits_for = why, ""
        self._behind(state, began)

    def _wait(self, state: LogState, outage: Unavailable, began: float) -> None:
        if state.waits_for != outage.what:
            log_event(
                log,
                "log_waits",
                level=logging.WARNING,
                log=str(state.name),
                server=outage.what,
                why=str(outage),
            )
        state.waits_for = outage.what
        self._metrics.outage(outage.what)
        self._behind(state, began)

    def _behind(self, state: LogState, began: float) -> None:
        if state.uncovered_since is None:
            state.uncovered_since = began

    def _state(self, name: LogName) -> LogState:
        state = self.states.get(name)
        if state is None:
            state = self.states[name] = LogState(name)
            self._metrics.watch_age(
                name.topic, name.partition, lambda: self._age_s(name.topic, name.partition)
            )
        return state

    def _age_s(self, topic: str, partition: int) -> float:
        """Of the epoch that waits longest."""
        now = self._clock()
        ages = [
            state.age_s(now)
            for state in list(self.states.values())
            if (state.name.topic, state.name.partition) == (topic, partition)
        ]
        return max(ages, default=0.0)
