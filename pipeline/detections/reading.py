"""A rule file's text as a rule with its tests; what is wrong is said with its line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import avro_schemas
from pipeline.detections.fields import check_path, duration_us, word
from pipeline.detections.lines import Part, Unreadable, read
from pipeline.detections.measures import read_measures
from pipeline.detections.own_tests import RuleTest, read_test
from pipeline.domain.detection.aggregate import INTAKE, INTAKE_COUNTS
from pipeline.domain.detection.rules import (
    Condition,
    Kind,
    Level,
    Operator,
    Rule,
    Selection,
)  # fmt: skip

RUNBOOK: Final = "docs/runbooks/detections.md"
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TAG: Final = re.compile(r"attack\.(t\d{4}(\.\d{3})?|[a-z]+(-[a-z]+)*)")
_STATUSES: Final = ("stable", "test", "experimental")  # Sigma's
_REQUIRED: Final = (
    "name", "title", "level", "status", "description", "references", "tags", "falsepositives",
    "runbook", "dedup", "selections", "correlation", "tests",
)  # fmt: skip
_CORRELATION: Final = (
    "type",
    "group-by",
    "timespan",
    "condition",
    "any",
    "field",
    "learn",
)


@dataclass(frozen=True, slots=True)
class RuleFile:
    """A rule and its own tests."""

    rule: Rule
    tests: tuple[RuleTest, ...] = field(default=())


def read_rule(text: str, name: str) -> RuleFile:
    """The rule of a file of that name (without its ending).

    Raises:
        Unreadable: Names the line and the reason.
    """
    parts = _complete(read(text))
    if parts["name"].value != name or not _NAME.fullmatch(name):
        raise Unreadable(parts["name"].line, f"the name is not that of the file, {name}")
    for tag in parts["tags"].list("tags"):
        if not _TAG.fullmatch(tag.text("a tag")):
            raise Unreadable(tag.line, "a tag is not of ATT&CK, such as attack.t1110.003")
    selections = tuple(
        _selection(key, part) for key, part in parts["selections"].mapping("selections").items()
    )
    if not selections:
        raise Unreadable(parts["selections"].line, "there is no selection")
    if parts["runbook"].value != f"{RUNBOOK}#{name}":
        raise Unreadable(parts["runbook"].line, f"the runbook is not {RUNBOOK}#{name}")
    rule = _rule(parts, selections)
    tests = tuple(read_test(part, rule) for part in parts["tests"].list("tests"))
    if not any(test.alerts for test in tests) or all(test.alerts for test in tests):
        raise Unreadable(
            parts["tests"].line, "a test that alerts, or one that does not, is missing"
        )
    return RuleFile(rule, tests)


def _complete(document: Part) -> dict[str, Part]:
    parts = document.mapping("the file")
    for key, part in parts.items():
        if key not in _REQUIRED:
            raise Unreadable(part.line, f"there is no {key}")
    for key in _REQUIRED:
        if key not in parts:
            raise Unreadable(document.line, f"{key} is missing")
    return parts


def _rule(parts: dict[str, Part], selections: tuple[Selection, ...]) -> Rule:
    correlation = parts["correlation"].mapping("correlation")
    for key, part in correlation.items():
        if key not in _CORRELATION:
            raise Unreadable(part.line, f"a correlation has no {key}")
    for key in ("type", "group-by", "timespan", "condition"):
        if key not in correlation:
            raise Unreadable(parts["correlation"].line, f"correlation: {key} is missing")
    kind = word(correlation["type"], "type", Kind)
    families = {one.family for one in selections}
    for part in correlation["group-by"].list("group-by"):
        check_path(part, part.text("a field of group-by"), families)
    measures = read_measures(correlation, selections, kind)
    counted = ""
    if "field" in correlation:
        counted = correlation["field"].text("field")
        check_path(correlation["field"], counted, families)
    if kind is Kind.FIRST_SEEN and not counted:
        raise Unreadable(parts["correlation"].line, "first_seen: field is missing")
    learn = correlation.get("learn")
    return Rule(
        name=parts["name"].text("name"),
        title=parts["title"].text("title"),
        level=word(parts["level"], "level", Level),
        status=_status(parts["status"]),
        description=parts["description"].text("description"),
        references=parts["references"].texts("a reference"),
        tags=parts["tags"].texts("a tag"),
        false_positives=parts["falsepositives"].texts("a false positive"),
        runbook=parts["runbook"].text("runbook"),
        dedup_us=duration_us(parts["dedup"], "dedup"),
        kind=kind,
        selections=selections,
        group_by=correlation["group-by"].texts("a field of group-by"),
        timespan_us=duration_us(correlation["timespan"], "timespan"),
        measures=measures,
        field=counted,
        learn_us=duration_us(learn, "learn") if learn else 0,
    )


def _status(part: Part) -> str:
    if part.value not in _STATUSES:
        raise Unreadable(part.line, f"status is none of {', '.join(_STATUSES)}")
    return part.text("status")


def _selection(name: str, part: Part) -> Selection:
    fields = part.mapping(f"selection {name}")
    if "family" not in fields:
        raise Unreadable(part.line, f"selection {name}: family is missing")
    family = fields["family"].text("family")
    if family not in (*avro_schemas.families(), INTAKE):
        raise Unreadable(fields["family"].line, "there is no such family")
    if family == INTAKE and name not in INTAKE_COUNTS:
        raise Unreadable(part.line, f"a selection of {INTAKE} is one of {', '.join(INTAKE_COUNTS)}")
    conditions = []
    for key, value in fields.items():
        if key == "family":
            continue
        path, _, modifier = key.partition("|")
        check_path(value, path, {family})
        operator = Operator.EQUALS
        if modifier:
            operator = word(Part(modifier, value.line), "modifier", Operator)
        wanted = value.scalars(key)
        if operator is Operator.FIELDREF:
            check_path(value, str(wanted[0]), {family})
        conditions.append(Condition(path, operator, wanted))
    return Selection(name, family, tuple(conditions))
