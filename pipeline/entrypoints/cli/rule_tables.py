"""What ``audit-trail rules`` shows of an evaluation and of a backtest, as rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline.contracts.event_files import FoundEvent
from pipeline.detections.evaluation import Figures, per_day, run
from pipeline.detections.events import Accepting
from pipeline.detections.vendor import says_of_one, try_records
from pipeline.domain.detection.rules import DAY_US, Rule
from pipeline.entrypoints.cli.output import Row

EVALUATION_COLUMNS = [
    "rule", "level", "attacks", "found", "missed", "alerts", "false", "false_per_100k",
]  # fmt: skip
VENDOR_COLUMNS = [
    "file",
    "record",
    "family",
    "action",
    "vendor_rule",
    "expected",
    "fired",
    "why_not",
]
BACKTEST_COLUMNS = ["day", "rule", "level", "alerts"]


def evaluation_rows(figures: Figures) -> list[Row]:
    """A row for each rule, and one for all."""
    rows: list[Row] = [
        {
            "rule": name,
            "level": one.rule.level,
            "attacks": len(one.staged),
            "found": len(one.found),
            "missed": one.missed,
            "alerts": one.alerts,
            "false": one.false_alerts,
            "false_per_100k": round(figures.per_100k(one.false_alerts), 2),
        }
        for name, one in sorted(figures.rules.items())
    ]
    rows.append(
        {
            "rule": "all",
            "level": "",
            "attacks": len(figures.staged),
            "found": len(figures.found),
            "missed": len(figures.missed),
            "alerts": sum(one.alerts for one in figures.rules.values()),
            "false": figures.false_alerts,
            "false_per_100k": round(figures.per_100k(figures.false_alerts), 2),
        }
    )
    return rows


def vendor_rows(rules: Sequence[Rule], folder: Path) -> list[Row]:
    """Every record on which a rule fires, and every one that the vendor's rule was to fire on."""
    enough = {rule.name for rule in rules if says_of_one(rule)}
    families = {
        selection.family for rule in rules if rule.name in enough for selection in rule.selections
    }
    rows: list[Row] = []
    for one in try_records(rules, folder):
        if not one.fired and not one.expected:
            continue
        reason = ""
        if not one.fired:
            reason = "no rule of one event wants it"
            if not one.family:
                reason = "no event can be made of it"
            elif one.family not in families:
                reason = "rules of its family count over a window"
        rows.append(
            {
                "file": one.file,
                "record": one.position,
                "family": one.family,
                "action": one.action,
                "vendor_rule": one.vendor_rule,
                "expected": one.expected,
                "fired": ", ".join(one.fired),
                "why_not": reason,
            }
        )
    return rows


def backtest_rows(rules: Sequence[Rule], events: Iterable[FoundEvent]) -> list[Row]:
    """Alerts by day and rule."""
    accepting = Accepting()
    alerts = per_day(run(rules, (accepting(one.family, one.event) for one in events)))
    levels = {rule.name: rule.level for rule in rules}
    return [
        {
            "day": datetime.fromtimestamp(day * DAY_US / 1_000_000, UTC).date().isoformat(),
            "rule": name,
            "level": levels[name],
            "alerts": number,
        }
        for (day, name), number in sorted(alerts.items())
    ]
