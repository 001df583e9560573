"""Verification of the whole trail: every log, then what belongs to none.

It may run while the worker ingests: what each log was at the start is what is verified, followers are
held to their positions of that moment, and whatever comes later is not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pipeline.compliance.findings import LISTED_PER_SORT, Finding, Findings, Kind, Store
from pipeline.compliance.trail_reader import LogState
from pipeline.compliance.verify_ends import Parts
from pipeline.compliance.verify_intake import Topics, check_intake
from pipeline.compliance.verify_log import LogCheck
from pipeline.compliance.verify_state import LogProgress, Progress, load, save
from pipeline.domain.errors import ConfigurationError
from sinks.archive_format import ARCHIVE_PREFIX
from sinks.archive_listing import logs_below

SAVE_EVERY_S: Final = 5.0
FOREIGN_TRIES: Final = 3  # documents of leaves that came meanwhile are no one's by mistake


@dataclass(frozen=True, slots=True)
class Scope:
    """What to verify. ``log``: one alone; the period is of ``occurred_at``, its end not included."""

    log: str = ""
    begins: datetime | None = None
    ends: datetime | None = None

    @property
    def is_period(self) -> bool:
        return self.begins is not None or self.ends is not None


@dataclass(frozen=True, slots=True)
class Options:
    """How. ``scope_facts``: what a state file must be of; ``topics`` is None where Kafka is left out."""

    scope: Scope
    scope_facts: Mapping[str, Any]
    topics: Topics | None
    state_file: Path | None = None
    on_leaves: Callable[[int], None] = lambda _leaves: None
    clock: Callable[[], float] = time.monotonic


class Verification:
    """One run over the parts that are given. ``make_parts`` is told what to call after each span."""

    def __init__(
        self, make_parts: Callable[[Callable[[int], None]], Parts], options: Options
    ) -> None:
        self._parts = make_parts(self._on_span)
        self._options = options
        self._saved_at = options.clock()
        self._progress: Progress | None = None

    async def begin(self) -> Progress:
        """Fix what is verified, or find out how far an earlier run came.

        Raises:
            ConfigurationError: No such log; a state file of another verification.
            Unavailable: Ask again later.
        """
        options = self._options
        if options.state_file is not None:
            self._progress = load(options.state_file, options.scope_facts)
        if self._progress is None:
            states = await self._parts.reader.logs()
            wanted = [one for one in states if options.scope.log in ("", str(one.name))]
            if options.scope.log and not wanted:
                raise ConfigurationError(f"no such log: {options.scope.log}")
            logs = [LogProgress(state) for state in wanted]
            self._progress = Progress(dict(options.scope_facts), logs, Findings())
        return self._progress

    async def run(self) -> Progress:
        """Verify all of it; what was found. After a failure the state file, if any, is up to date.

        Raises:
            ConfigurationError: A server refuses; see ``begin``.
            Unavailable: A server does not answer: run it again with the same state file.
        """
        progress = self._progress or await self.begin()
        try:
            await self._parts.authorities.load()
            if self._parts.index is not None:
                await self._parts.index.refresh()
            for log in progress.logs:
                if not log.done:
                    await self._log(progress, log)
                    self._save()
            if not self._options.scope.log:
                progress.findings.add_all(self._parts.authorities.findings)
                await self._nobodys(progress.findings)
        finally:
            progress.stubs += self._parts.documents.stubs
            self._save()
        return progress

    async def _log(self, progress: Progress, log: LogProgress) -> None:
        state, scope, findings = log.state, self._options.scope, progress.findings
        begins, ends = 0, state.size
        if scope.is_period:
            begins, ends = await self._parts.reader.of_period(
                state.log_id, scope.begins or _EARLIEST, scope.ends or _LATEST
            )
            begins, ends = min(begins, state.size), min(ends, state.size)
        check = LogCheck(self._parts, log, findings, begins=begins, ends=ends)
        await check.run()
        if self._parts.ledger:
            await check_intake(
                self._parts.reader,
                state,
                findings,
                self._options.topics,
                self._parts.authorities.is_erasure,
            )
        log.done = True

    async def _nobodys(self, findings: Findings) -> None:
        """Rows, objects and documents of logs that the ledger does not have."""
        states = await self._parts.reader.logs()
        known = [state.log_id for state in states]
        for table, log_id in await self._parts.reader.foreign_logs(known):
            what = f"rows of {table} with log id {log_id}, which no head has"
            findings.add(Finding(Kind.ADDED, Store.LEDGER, str(log_id), what))
        names = {state.name for state in states}
        archive = self._parts.archive
        if archive is not None:
            for prefix in (ARCHIVE_PREFIX, "checkpoints/"):
                for name in await logs_below(archive.s3, archive.archive_bucket, prefix):
                    if name not in names:
                        what = (
                            f"the bucket has objects of it ({prefix}), the ledger does not know it"
                        )
                        findings.add(Finding(Kind.MISSING, Store.HEADS, str(name), what))
        if self._parts.index is not None:
            await self._foreign_documents(findings, states)

    async def _foreign_documents(self, findings: Findings, states: list[LogState]) -> None:
        index = self._parts.index
        if index is None:
            return
        for _try in range(FOREIGN_TRIES):
            sizes = {str(state.name): state.size for state in states}
            count, documents = await index.foreign(sizes, LISTED_PER_SORT)
            states = await self._parts.reader.logs()
            if not count or sizes == {str(state.name): state.size for state in states}:
                break
        for number in range(count):
            document = documents[number] if number < len(documents) else None
            log = str(document.source.get("audit.log", "-")) if document else "-"
            findings.add(
                Finding(
                    Kind.ADDED,
                    Store.INDEX,
                    log,
                    "a document that is no leaf of any log",
                    event_id=document.id if document else None,
                    place=f"{document.index_name}/{document.id}" if document else None,
                )
            )

    def _on_span(self, leaves: int) -> None:
        self._options.on_leaves(leaves)
        now = self._options.clock()
        if now - self._saved_at >= SAVE_EVERY_S:
            self._saved_at = now
            self._save()

    def _save(self) -> None:
        if self._options.state_file is not None and self._progress is not None:
            save(self._options.state_file, self._progress)


_EARLIEST: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_LATEST: Final = datetime.fromisoformat("2262-01-01T00:00:00+00:00")
