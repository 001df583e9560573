"""The page `docs/detections.md`, made from the rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pipeline.detections.reading import RuleFile
from pipeline.detections.wording import condition_text, duration_text, measure_text
from pipeline.domain.detection.aggregate import LATENESS_US
from pipeline.domain.detection.cells import KEPT, POINTS
from pipeline.domain.detection.rows import CELLS_MAX, LATE_US
from pipeline.domain.detection.rules import BUCKETS, Kind, Operator, Rule, Selection

_TYPES: Final = {
    Kind.EVENT_COUNT: "events of a group within the timespan",
    Kind.VALUE_COUNT: "the same, with different values of fields",
    Kind.TEMPORAL: "events of several selections, in any order",
    Kind.TEMPORAL_ORDERED: "events of several selections; the last one comes last",
    Kind.TRAVEL: "distance and speed between two events with a place, at most the timespan apart",
    Kind.FIRST_SEEN: "a value of `field` that the group did not have for the timespan, once it is known for `learn`",
    Kind.DORMANT: "days since the last event of the group",
    Kind.HOURS: "events within an hour, against what the group usually does in that hour of the day",
    Kind.BASELINE: "events, or the sum of `field`, in a bucket of the timespan, against the median of earlier ones",
    Kind.SILENCE: "intervals of a heartbeat that have passed without one",
    Kind.GAP: "sequences that are missing the timespan after later ones came",
}


def detections_page(files: Sequence[RuleFile]) -> str:
    """The page's text."""
    return "\n".join(
        [*_introduction(), *_writing(), *_counting(), *_overview(files), *_sections(files), ""]
    )


def _introduction() -> Iterator[str]:
    yield from (
        "# Detections",
        "",
        "Made from `agents/rules` by `scripts/detection_page.py`; a test keeps it current. Do not edit.",
        "",
        "Rules are files, in the shape of Sigma correlations. `audit-trail rules list` lists them,",
        "`audit-trail rules test` runs their own tests, `audit-trail rules evaluate` tries them on labelled attacks,",
        "`audit-trail rules backtest` on files of events. What to do about an alert:",
        "[runbooks/detections.md](runbooks/detections.md).",
        "",
    )


def _writing() -> Iterator[str]:
    yield from (
        "## How to write one",
        "",
        "1. Copy the file in `agents/rules` that is nearest; name it as the rule. `name` and the anchor of `runbook` are the same.",
        "2. `selections`: each has a `family` and conditions on fields of [events.md](events.md). Several values are any of them;",
        f"   `field|modifier` compares otherwise: {', '.join(f'`{one}`' for one in Operator if one is not Operator.EQUALS)}.",
        "3. `group-by`: fields, or `actor` and `target` for who it is; empty for the tenant. `timespan` and `dedup` as `90s`, `15m`, `1h`, `10d`.",
        "4. `condition`: named measures (`count`, `distinct`, `sum`, `ratio`, `max-per`, `share`, `lasting`) with `gte` or `lte`; all must",
        "   hold, and of those under `any` one. `references` names the source of each figure.",
        "5. `tests`: at least one that alerts and one that does not. An event has the values of the first selection (or of `use`) and those",
        "   that it names; `repeat` and `step` make several, `{n}` in a text is the number of each, `{n%4}` its remainder.",
        "6. `audit-trail rules lint` and `audit-trail rules test` with `--folder`, then `audit-trail rules evaluate`.",
        "7. Write its section of the runbook, run `scripts/detection_page.py`. A tenant's own bounds stand in the file for `--overrides`:",
        "   rule, tenant, measure, value.",
        "",
    )


def _counting() -> Iterator[str]:
    yield from (
        "## How events are counted",
        "",
        "| type | measures |",
        "|---|---|",
        *(f"| `{kind}` | {text} |" for kind, text in _TYPES.items()),
        "",
        f"Windows are in event time, over buckets of a {BUCKETS}th of the timespan: a window of the timespan is never missed, and one that is",
        f"up to a {BUCKETS}th longer counts too. An event that its broker took more than {duration_text(LATENESS_US)} after it happened raises nothing (a replay,",
        f"an import). Behind newer events of its group it completes a window for the timespan, at least {duration_text(LATE_US)}. Different",
        f"values are exact up to {KEPT - 1}, beyond that an estimate; in order, {POINTS} events of a bucket are kept. A counter has at most",
        f"{CELLS_MAX} buckets. Groups and values are subject references and keyed hashes, places are whole degrees: no counter holds a name,",
        "an address or an IP. `producer-silent` and `sequence-gap` count over all tenants.",
        "",
    )


def _overview(files: Sequence[RuleFile]) -> Iterator[str]:
    yield from ("## The rules", "", "| rule | level | ATT&CK | what |", "|---|---|---|---|")
    for file in files:
        rule = file.rule
        tags = ", ".join(
            tag.removeprefix("attack.").upper() for tag in rule.tags if tag.startswith("attack.t1")
        )
        yield f"| [{rule.name}](#{rule.name}) | {rule.level} | {tags} | {rule.title} |"
    yield ""


def _sections(files: Sequence[RuleFile]) -> Iterator[str]:
    for file in files:
        rule = file.rule
        yield from (f"### {rule.name}", "", f"{rule.title}. {rule.description}", "")
        yield from _facts(rule)
        yield from ("", "| measure | of | bound |", "|---|---|---|")
        for measure in rule.measures:
            bound = "-"
            if measure.gte is not None:
                bound = f"at least {measure.gte:,g}"
            elif measure.lte is not None:
                bound = f"at most {measure.lte:,g}"
            yield f"| {measure.name} | {measure_text(measure)} | {bound} |"
        yield from ("", "Figures: " + "; ".join(rule.references) + ".", "")
        yield from ("False positives: " + "; ".join(rule.false_positives) + ".", "")
        yield from (f"Tests: {len(file.tests)}.", "")


def _facts(rule: Rule) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    yield f"| level, status | {rule.level}, {rule.status} |"
    yield f"| events | {'; '.join(_selection_text(one) for one in rule.selections)} |"
    grouped = ", ".join(f"`{name}`" for name in rule.group_by) or "the tenant"
    yield f"| type | `{rule.kind}` by {grouped} in {duration_text(rule.timespan_us)} |"
    yield f"| alerts when | {condition_text(rule)} |"
    if rule.learn_us:
        yield f"| learns for | {duration_text(rule.learn_us)} |"
    yield f"| again after | {duration_text(rule.dedup_us)} |"


def _selection_text(selection: Selection) -> str:
    texts = [f"*{selection.name}*: {selection.family}"]
    for one in selection.conditions:
        values = " or ".join(f"`{value}`" for value in one.values)
        word = "" if one.operator is Operator.EQUALS else f" {one.operator}"
        texts.append(f"`{one.path}`{word} {values}")
    return ", ".join(texts)
