"""Which rules fire on records of other systems, each record by itself.

The records are inputs of public rules for one event. A rule that counts over a window says nothing of
one record: what is not caught is listed with its vendor's rule, for a person to judge.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.detections.evaluation import run
from pipeline.detections.events import Accepting
from pipeline.domain.detection.rules import Kind, Of, Rule
from pipeline.importers.catalogue import SOURCES, map_record
from pipeline.importers.events import Unmappable

# Files are named for their source and what of it they hold.
FILES: Final[Mapping[str, str]] = {
    "aws-cloudtrail.jsonl": "aws-cloudtrail",
    "github-audit.jsonl": "github",
    "okta-systemlog.jsonl": "okta",
}


@dataclass(frozen=True, slots=True)
class VendorResult:
    """What became of one record. ``expected``: the vendor's own rule fires; None: nobody said."""

    file: str
    position: int
    family: str  # empty: no event could be made of it
    action: str
    vendor_rule: str
    expected: bool | None
    fired: tuple[str, ...]


def try_records(rules: Sequence[Rule], folder: Path) -> Iterator[VendorResult]:
    """Every record of the files in a folder that an importer knows.

    A line is the record, or ``{"rule": …, "expected": …, "log": {record}}``.

    Raises:
        OSError, ValueError: A file cannot be read.
    """
    accepting = Accepting()
    for name, source in FILES.items():
        file = folder / name
        if source not in SOURCES or not file.is_file():
            continue
        for position, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            told = json.loads(line)
            labelled: dict[str, Any] = told if isinstance(told.get("log"), dict) else {"log": told}
            rule, expected = str(labelled.get("rule", "")), labelled.get("expected")
            try:
                made = map_record(source, labelled["log"], tenant="acme")
            except Unmappable:
                yield VendorResult(name, position, "", "", rule, expected, ())
                continue
            event = accepting(made.family, made.event)
            fired = sorted({alert.rule for alert in run(rules, [event])})
            action = str(made.event["action"])
            yield VendorResult(name, position, made.family, action, rule, expected, tuple(fired))


def says_of_one(rule: Rule) -> bool:
    """Whether one event can be enough for a rule."""
    return rule.kind is Kind.EVENT_COUNT and all(
        measure.of in (Of.COUNT, Of.SUM) and (measure.gte or 0) <= 1 for measure in rule.measures
    )
