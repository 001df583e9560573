"""A rule file's text as a rule with its tests; what is wrong is said with its line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import avro_schemas
from pipeline.detections.fields import check_path, duration_us, word
from pipeline.detections.lines import Part, Unreadable, read
from pipeline.detections.own_tests import RuleTest, read_test
from pipeline.domain.detection.aggregate import INTAKE
from pipeline.domain.detection.rules import (
    MEASURED,
    Condition,
    Kind,
    Level,
    Measure,
    Of,
    Operator,
    Rule,
    Selection,
)  # fmt: skip

RUNBOOK: Final = "docs/runbooks/detections.md"
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TAG: Final = re.compile(r"attack\.(t\d{4}(\.\d{3})?|[a-z]+(-[a-z]+)*)")
_STATUSES: Final = ("stable", "test", "experimental")  # Sigma's
_ORDERED_MAX: Final = 32  # single events of one bucket that are kept in order
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
    "rules",
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
    measures = [
        _measure(key, part, selections, kind, is_any=is_any)
        for where, is_any in (("condition", False), ("any", True))
        if where in correlation
        for key, part in correlation[where].mapping(where).items()
    ]
    names = {measure.name for measure in measures}
    if len(names) < len(measures):
        raise Unreadable(correlation["any"].line, "a measure stands in condition and in any")
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
        measures=tuple(measures),
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


def _measure(
    name: str, part: Part, selections: tuple[Selection, ...], kind: Kind, *, is_any: bool
) -> Measure:
    told = dict(part.mapping(name))
    gte, lte = (told.pop(key).number(key) if key in told else None for key in ("gte", "lte"))
    if gte is not None and lte is not None:
        raise Unreadable(part.line, f"{name}: both gte and lte; make two measures of it")
    names = [one.name for one in selections]
    of_part = told.pop("of", None)
    selection = of_part.text("of") if of_part else ""
    field_path, operands, band = "", ("", ""), (0, 0)
    if not told:
        if name not in MEASURED.get(kind, ()):
            raise Unreadable(part.line, f"{name} is nothing that {kind} measures")
        return Measure(name, Of.GIVEN, is_any=is_any, gte=gte, lte=lte)
    key = next(iter(told))
    of = word(Part(key, part.line), "a measure", Of)
    value = told.pop(key)
    if of in (Of.COUNT, Of.LASTING):
        selection = "" if value.value == "*" else value.text(key)
    elif of is Of.RATIO:
        over, under = value.texts(key)
        operands = (over, under)
    else:
        field_path = value.text(key)
        check_path(
            value, field_path, {one.family for one in selections if selection in ("", one.name)}
        )
    if of is Of.SHARE:
        pair = told.pop("band", value).list("band")
        band = (pair[0].integer("band"), pair[1].integer("band"))
    if told:
        raise Unreadable(part.line, f"{name}: there is no {next(iter(told))}")
    if selection and selection not in names:
        raise Unreadable(part.line, f"{name}: there is no selection {selection}")
    if kind is Kind.TEMPORAL_ORDERED and (of is not Of.COUNT or (gte or 0) > _ORDERED_MAX):
        raise Unreadable(part.line, f"{name}: temporal_ordered counts up to {_ORDERED_MAX} events")
    return Measure(name, of, selection, field_path, operands, band, is_any=is_any, gte=gte, lte=lte)
