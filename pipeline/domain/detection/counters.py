"""Stage 2: signals become counters, and counters alerts. Windows are in event time.

A counter ignores ranges that it has, so a signal that comes again changes nothing; a range that is
partly counted is refused, since the sender promises the same range after a crash. For bounds that more
events can only reach (gte) the same windows alert in whatever ranges a log is cut; a bound that more
events can break (lte) is judged by what has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.domain.detection import windows
from pipeline.domain.detection.alerts import Alert, alert_id
from pipeline.domain.detection.cells import Cell
from pipeline.domain.detection.kinds import FIND, Finding, due
from pipeline.domain.detection.rows import Row, kept_buckets
from pipeline.domain.detection.rules import TIMED, WINDOWED, Kind, Rule
from pipeline.domain.detection.signals import Key, Signal
from pipeline.domain.errors import AuditTrailError


class RangeOverlap(AuditTrailError):
    """A signal's range is counted in part: counting it would lose or double. Stop and page."""


def apply(rule: Rule, row: Row, signal: Signal) -> list[Alert]:
    """Count a signal; the alerts that it makes. The row is changed.

    Raises:
        RangeOverlap: The signal is of leaves of which the row has a part.
    """
    counted = row.logs.get(signal.log, 0)
    if signal.next <= counted:
        return []
    if signal.first < counted:
        raise RangeOverlap(
            f"{signal.rule}: leaves {signal.first} to {signal.next - 1} of log {signal.log},"
            f" and {counted} is next"
        )
    row.logs[signal.log] = signal.next
    keep = kept_buckets(rule)
    # What a kind remembers beyond its cells takes buckets of any age.
    oldest = max(row.cells) - keep if row.cells and rule.kind in WINDOWED else 0
    new = {bucket: Cell.of_plain(cell) for bucket, cell in signal.cells.items() if bucket >= oldest}
    row.too_late += len(signal.cells) - len(new)
    if not new:
        return []
    for bucket, cell in new.items():
        if bucket in row.cells:
            row.cells[bucket].merge(cell)
        else:
            row.cells[bucket] = cell
    row.newest_us = max(row.newest_us, *(cell.last_us for cell in new.values()))
    alerts = _alerts(rule, row, signal.key, FIND[rule.kind](rule, row, new, signal.tenant))
    newest = max(row.cells)
    for bucket in [bucket for bucket in row.cells if bucket < newest - keep]:
        del row.cells[bucket]
    if rule.kind in _WITHOUT_CELLS:
        row.cells.clear()
    return alerts


# These remember all that they need. Their late buckets count too, since they are no windows.
_WITHOUT_CELLS = frozenset({Kind.TRAVEL, Kind.FIRST_SEEN, Kind.DORMANT, Kind.SILENCE, Kind.GAP})


def tick(rule: Rule, row: Row, key: Key, now_us: int) -> list[Alert]:
    """The alerts of rules that fire because time passes: ``TIMED`` ones. ``now_us`` is event time."""
    alerts = _alerts(rule, row, key, due(rule, row, now_us))
    if alerts and rule.kind is Kind.SILENCE:
        row.memory["told"] = row.memory["heard"][0]
    return alerts


def _alerts(rule: Rule, row: Row, key: Key, findings: Iterable[Finding]) -> list[Alert]:
    made: list[Alert] = []
    _name, tenant, group = key
    for finding in findings:
        if not rule.holds(tenant, finding.values):
            continue
        # Windows by their bucket, so that dedup is the same however far into it one was looked at.
        at_us = finding.bucket * rule.bucket_us if rule.kind in WINDOWED else finding.end_us
        if row.alerted_us is not None and abs(at_us - row.alerted_us) < rule.dedup_us:
            continue
        row.alerted_us = at_us
        made.append(
            Alert(
                alert_id=alert_id(rule.name, tenant, group, finding.bucket),
                rule=rule.name,
                level=rule.level,
                tenant=tenant,
                group=group,
                window_start_us=finding.start_us,
                window_end_us=finding.end_us,
                values=dict(finding.values),
                first_event_ids=windows.first_ids(finding.cells),
                runbook=rule.runbook,
            )
        )
    return made


@dataclass(slots=True)
class Counters:
    """All counters in memory: for tests, evaluation and backtests. A worker keeps rows in its table."""

    rules: Sequence[Rule]
    rows: dict[Key, Row] = field(default_factory=dict)
    _by_name: dict[str, Rule] = field(init=False)
    _timed: list[tuple[Rule, Row, Key]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._by_name = {rule.name: rule for rule in self.rules}

    def apply(self, signals: Iterable[Signal]) -> list[Alert]:
        """Count signals in their order; the alerts they make. Signals of unknown rules are left out."""
        return list(self._apply(signals))

    def _apply(self, signals: Iterable[Signal]) -> Iterator[Alert]:
        for signal in signals:
            rule = self._by_name.get(signal.rule)
            if rule is not None:
                row = self.rows.get(signal.key)
                if row is None:
                    row = self.rows[signal.key] = Row()
                    if rule.kind in TIMED:
                        self._timed.append((rule, row, signal.key))
                yield from apply(rule, row, signal)

    def tick(self, now_us: int) -> list[Alert]:
        """What is due at a time."""
        return [alert for rule, row, key in self._timed for alert in tick(rule, row, key, now_us)]
