"""The measures of a rule file: what is counted, and the bound of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from pipeline.detections.fields import check_path, word
from pipeline.detections.lines import Part, Unreadable
from pipeline.domain.detection.rules import MEASURED, Kind, Measure, Of, Selection

ORDERED_MAX: Final = 32  # single events of one bucket that are kept in order


def read_measures(
    correlation: Mapping[str, Part], selections: tuple[Selection, ...], kind: Kind
) -> tuple[Measure, ...]:
    """The measures under ``condition``, and those under ``any``.

    Raises:
        Unreadable: Names the line and the reason.
    """
    measures = [
        _measure(_Told(name, part, dict(part.mapping(name)), kind, is_any), selections)
        for where, is_any in (("condition", False), ("any", True))
        if where in correlation
        for name, part in correlation[where].mapping(where).items()
    ]
    names = {measure.name for measure in measures}
    if len(names) < len(measures):
        raise Unreadable(correlation["any"].line, "a measure stands in condition and in any")
    for measure in measures:
        if measure.of is Of.RATIO and not names.issuperset(measure.operands):
            line = correlation["condition"].line
            raise Unreadable(line, f"{measure.name}: of no such measures")
    return tuple(measures)


class _Told(NamedTuple):
    name: str
    part: Part
    parts: dict[str, Part]  # what is not read yet
    kind: Kind
    is_any: bool

    def refusal(self, reason: str) -> Unreadable:
        return Unreadable(self.part.line, f"{self.name}: {reason}")

    def pair(self, part: Part) -> tuple[Part, Part]:
        found = part.list(self.name)
        if len(found) != 2:
            raise self.refusal("it is of two")
        return found[0], found[1]

    def bound(self, key: str) -> float | None:
        return self.parts.pop(key).number(key) if key in self.parts else None


def _measure(told: _Told, selections: tuple[Selection, ...]) -> Measure:
    gte, lte = told.bound("gte"), told.bound("lte")
    if gte is not None and lte is not None:
        raise told.refusal("both gte and lte; make two measures of it")
    selection = told.parts.pop("of").text("of") if "of" in told.parts else ""
    if not told.parts:
        if told.name not in MEASURED.get(told.kind, ()):
            raise told.refusal(f"nothing that {told.kind} measures")
        return Measure(told.name, Of.GIVEN, is_any=told.is_any, gte=gte, lte=lte)
    key = next(iter(told.parts))
    value = told.parts.pop(key)
    of: Of = word(Part(key, told.part.line), "a measure", Of)
    field, operands, band = "", ("", ""), (0, 0)
    if of in (Of.COUNT, Of.LASTING):
        selection = "" if value.value == "*" else value.text(key)
    elif of is Of.RATIO:
        over, under = told.pair(value)
        operands = (over.text(key), under.text(key))
    else:
        field = value.text(key)
        families = {one.family for one in selections if selection in ("", one.name)}
        check_path(value, field, families)
    if of is Of.SHARE:
        low, high = told.pair(told.parts.pop("band", value))
        band = (low.integer("band"), high.integer("band"))
    _check(told, of, selection, selections)
    if told.kind is Kind.TEMPORAL_ORDERED and (of is not Of.COUNT or (gte or 0) > ORDERED_MAX):
        raise told.refusal(f"temporal_ordered counts up to {ORDERED_MAX} events")
    return Measure(
        told.name, of, selection, field, operands, band, gte=gte, lte=lte, is_any=told.is_any
    )


def _check(told: _Told, of: Of, selection: str, selections: tuple[Selection, ...]) -> None:
    if of is Of.GIVEN:  # a word of the code alone
        raise told.refusal("there is no given")
    if told.parts:
        raise told.refusal(f"there is no {next(iter(told.parts))}")
    if selection and selection not in [one.name for one in selections]:
        raise told.refusal(f"there is no selection {selection}")
