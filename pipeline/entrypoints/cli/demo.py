"""``audit-trail demo``: real vendor records all the way, and proof that every store has them.

Set-up, import, one worker until drained, then the sets of ids are compared. May be repeated: what
the trail holds already is taken into account.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pipeline.domain.errors import AuditTrailError, ConfigurationError
from pipeline.entrypoints.cli.compare import (
    SELECT_LEAVES,
    Comparison,
    compare_stores,
    ledger_ids,
)
from pipeline.entrypoints.cli.database import connected
from pipeline.entrypoints.cli.failures import ProblemFound
from pipeline.entrypoints.cli.importing import ImportSummary, import_files
from pipeline.entrypoints.cli.output import (
    OutputFormat,
    Row,
    progress,
    say,
    show_json,
    show_rows,
)
from pipeline.entrypoints.cli.published import Published, read_published
from pipeline.entrypoints.cli.setup_steps import run_steps
from pipeline.entrypoints.cli.status import log_rows
from pipeline.importers.catalogue import SOURCES

if TYPE_CHECKING:
    from pipeline.settings import Settings

STORED_SHARE_MIN: Final = 0.9
WORKER: Final = (sys.executable, "-m", "pipeline.entrypoints.cli", "worker", "--drain")
_LOOK_EVERY_S: Final = 0.5
_LOG_LINES: Final = 5
_SETTLE_S: Final = 60.0

SELECT_PROGRESS: Final = "SELECT coalesce(sum(next_offset), 0)::bigint AS records FROM log_heads"


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """Everything that the one table shows."""

    summary: ImportSummary
    published: Sequence[Published]
    comparison: Comparison
    lags: dict[str, int]

    @property
    def stored(self) -> int:
        """Mapped records whose event the ledger has."""
        return sum(event_id.bytes in self.comparison.leaves for event_id, _ in self.published)

    @property
    def passed(self) -> bool:
        """The stores agree with what was published, and enough of what was mapped is stored."""
        enough = self.stored >= STORED_SHARE_MIN * self.summary.mapped
        return self.comparison.equal and enough and self.summary.mapped > 0

    def rows(self) -> list[Row]:
        """The one table."""
        rows: list[Row] = [
            _line("records read", self.summary.read),
            _line("records mapped", self.summary.mapped),
            *(
                _line(f"not mapped: {reason}", records)
                for reason, records in self.summary.unmapped.most_common()
            ),
            _line("records published", self.summary.published),
            _line("of these stored", self.stored),
        ]
        rows += [
            _line(f"dead letters: {reason}", letters)
            for reason, letters in sorted(self.comparison.reasons.items())
        ] or [_line("dead letters", 0)]
        rows += [
            _line(f"events {store.store}", store.events, "equal" if store.equal else "DIFFERS")
            for store in self.comparison.stores
        ]
        rows += [_line(f"lag {name}", records) for name, records in self.lags.items()]
        return rows

    def not_stored(self) -> list[Row]:
        """Each mapped record that is not stored, and why."""
        return [
            {
                "event_id": str(event_id),
                "position": str(position),
                "reason": self.comparison.dead.get(position, "lost"),
            }
            for event_id, position in self.published
            if event_id.bytes not in self.comparison.leaves
        ]

    def as_dict(self) -> dict[str, Any]:
        """For output."""
        return {
            "passed": self.passed,
            "import": self.summary.as_dict(),
            "stored": self.stored,
            "not_stored": self.not_stored(),
            "stores": self.comparison.as_dict(),
            "lag_records": self.lags,
        }


def run_demo(settings: Settings, samples: Path, output: OutputFormat) -> None:
    """The whole demonstration; returns if it passed.

    Raises:
        ProblemFound: The stores differ, or too little is stored; the table says what.
        ConfigurationError: There are no samples, or set-up failed.
        Unavailable: A server does not answer.

    """
    files = sample_files(samples)
    _set_up(settings)
    with TemporaryDirectory(prefix="audit-demo-") as folder:
        if any(_lags(settings).values()):
            say("first what earlier loads left behind …")
            _drain(settings, Path(folder) / "worker.log")
    before = ledger_ids(settings, "leaves", SELECT_LEAVES).ids
    with TemporaryDirectory(prefix="audit-demo-") as folder:
        ids = Path(folder) / "published.tsv"
        summary = ImportSummary()
        for source, file in files:
            summary.add(import_files(settings, source, [file], create_tenants=True, ids_file=ids))
        _drain(settings, Path(folder) / "worker.log")
        say("comparing the stores …")
        comparison = compare_stores(settings, ids, before=before)
        outcome = DemoOutcome(summary, list(read_published(ids)), comparison, _lags(settings))
    _show(settings, outcome, output)
    if not outcome.passed:
        raise ProblemFound("the demo failed: the table says where the stores differ")


def sample_files(samples: Path) -> list[tuple[str, Path]]:
    """Each source with its file: the one whose name begins with the source's.

    Raises:
        ConfigurationError: A source has none.

    """
    found = []
    for source in sorted(SOURCES):
        files = sorted(samples.glob(f"{source}*.json*"))
        if not files:
            raise ConfigurationError(f"{samples} has no file {source}*.jsonl: see --samples")
        found += [(source, file) for file in files]
    return found


def _set_up(settings: Settings) -> None:
    failed = [outcome for outcome in run_steps(settings) if outcome.status != "ok"]
    if failed:
        raise ConfigurationError(f"{failed[0].step}: {failed[0].detail}")


def _drain(settings: Settings, log: Path) -> None:
    """Run a worker of its own until every store is at the end.

    Raises:
        AuditTrailError: It ended otherwise; its last lines are shown.

    """
    total = sum(_number(row["end_offset"]) for row in log_rows(settings))
    with _worker(log) as worker, progress("storing", total) as done:
        shown = 0
        while worker.poll() is None:
            time.sleep(_LOOK_EVERY_S)
            with connected(settings) as connection:
                row = connection.execute(SELECT_PROGRESS).fetchone()
            stored = row["records"] if row else 0
            done.advance(stored - shown)
            shown = stored
    if worker.returncode != 0:
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]:
            say(line)
        raise AuditTrailError(f"the worker ended with status {worker.returncode}")
    _settle(settings)


def _settle(settings: Settings) -> None:
    """Wait for other workers of the group: ours drained its own partitions only."""
    until = time.monotonic() + _SETTLE_S
    while any(_lags(settings).values()) and time.monotonic() < until:
        time.sleep(_LOOK_EVERY_S)


@contextmanager
def _worker(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that does not outlive us, Ctrl-C included."""
    with log.open("wb") as lines:
        # A port of its own: another worker may be running beside it.
        environment = {**os.environ, "AUDIT_HTTP_PORT": "0"}
        worker = subprocess.Popen(  # noqa: S603 - ourselves
            WORKER, stdout=lines, stderr=lines, env=environment
        )
        try:
            yield worker
        finally:
            if worker.poll() is None:
                worker.terminate()
                worker.wait()


def _lags(settings: Settings) -> dict[str, int]:
    rows = log_rows(settings)
    return {
        name: sum(_number(row[column]) for row in rows)
        for name, column in (
            ("ledger", "lag_records"),
            ("index", "index_lag_records"),
            ("archive", "archive_lag_records"),
        )
    }


def _show(settings: Settings, outcome: DemoOutcome, output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        show_json(outcome.as_dict())
        return
    show_rows(outcome.rows(), ["what", "count", "state"], output)
    not_stored = outcome.not_stored()
    if not_stored:
        say("mapped and not stored:")
        show_rows(not_stored, ["event_id", "position", "reason"], output)
    differences = outcome.comparison.difference_rows()
    if differences:
        show_rows(differences, ["store", "difference", "event_id"], output)
    say("\nwhere to look:")
    for line in where_to_look(settings):
        say(f"  {line}")


def where_to_look(settings: Settings) -> list[str]:
    """Addresses of the stores, without their passwords."""
    database = urlsplit(settings.database_url.get_secret_value())
    user = f"{database.username}@" if database.username else ""
    place = f"{database.scheme}://{user}{database.hostname}:{database.port}{database.path}"
    query = "SELECT occurred_at, tenant, action, outcome FROM audit_logs LIMIT 10"
    search = f"{settings.elasticsearch_url}/{settings.index_prefix}-*/_search?pretty&size=3"
    store = settings.s3_endpoint_url or "s3.amazonaws.com"
    return [
        f"ledger    psql '{place}' -c '{query}'",
        "          (the password is in AUDIT_DATABASE_URL)",
        f"index     {search}",
        f"archive   bucket {settings.s3_archive_bucket}, sealed events; {store}",
        f"vault     bucket {settings.s3_vault_bucket}, encrypted personal data and keys",
        f"metrics   http://{settings.http_host}:{settings.http_port}/metrics while a worker runs",
        "progress  audit-trail status",
    ]


def _line(what: str, count: int, state: str = "") -> Row:
    return {"what": what, "count": count, "state": state}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
