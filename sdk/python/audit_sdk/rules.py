"""What holds for an event as a whole, beyond its fields: the rules of its family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from audit_sdk.errors import Problem
from audit_sdk.values import ABSENT, Problems


def broken_rules(rules: Sequence[Mapping[str, Any]], event: Mapping[str, Any]) -> Problems:
    problems: Problems = []
    for rule in rules:
        _RULES[rule["rule"]](rule, event, problems)
    return problems


def _required_if(rule: Mapping[str, Any], event: Mapping[str, Any], problems: Problems) -> None:
    if event.get(rule["when"], ABSENT) == rule["is"] and not event.get(rule["path"]):
        because = f"is required when {rule['when']} is {str(rule['is']).lower()}"
        problems.append(Problem(rule["path"], "required_if", because))


def _at_least_one(rule: Mapping[str, Any], event: Mapping[str, Any], problems: Problems) -> None:
    if not any(event.get(path) for path in rule["paths"]):
        detail = f"at least one of {' and '.join(rule['paths'])} is required"
        problems.append(Problem(rule["paths"][0], "at_least_one", detail))


_RULES: Final = {"required_if": _required_if, "at_least_one": _at_least_one}
