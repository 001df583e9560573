"""Policies of redaction: which fields are cut from events once they are old enough; as YAML files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipeline.compliance.patterns import FieldRule
from pipeline.compliance.yaml_subset import parse
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import FAMILIES

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_MEMBERS = ("name", "reason", "tenants", "families", "actions", "fields", "data_classes", "value",
            "older_than_days")  # fmt: skip
_LISTS = ("tenants", "families", "actions", "fields", "data_classes")
FILE_MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class RedactionPolicy:
    """Fields that are cut from events once both their times are ``older_than_days`` ago.

    Empty tenants, families, actions: all of them.
    """

    name: str
    reason: str
    rule: FieldRule
    older_than_days: int
    tenants: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As the database keeps it."""
        return asdict(self)

    @property
    def rule_hash(self) -> bytes:
        """SHA-256 of all that decides what is cut, not of name and reason."""
        decides = {k: v for k, v in self.as_dict().items() if k not in ("name", "reason")}
        return sha256(json.dumps(decides, sort_keys=True).encode()).digest()

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> RedactionPolicy:
        """Read back what ``as_dict`` gave, through JSON."""
        rule = found["rule"]
        return cls(
            name=found["name"],
            reason=found["reason"],
            rule=FieldRule(tuple(rule["fields"]), tuple(rule["data_classes"]), rule["value"]),
            older_than_days=found["older_than_days"],
            **{name: tuple(found[name]) for name in ("tenants", "families", "actions")},
        )


def read_policies(path: Path) -> list[RedactionPolicy]:
    """The policies of a file: a mapping with the one member ``policies``, a list.

    Raises:
        ConfigurationError: Names the line or the member that is wrong.
    """
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise ConfigurationError(f"{path}: longer than {FILE_MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"{path} cannot be read") from None
    document = parse(text, str(path))
    if not isinstance(document, dict) or set(document) != {"policies"}:
        raise ConfigurationError(f"{path}: not one mapping with the member policies")
    if not isinstance(document["policies"], list) or not document["policies"]:
        raise ConfigurationError(f"{path}: policies is not a list of one or more")
    policies = [
        _policy(found, f"{path}: policy {n}") for n, found in enumerate(document["policies"], 1)
    ]
    if len({policy.name for policy in policies}) < len(policies):
        raise ConfigurationError(f"{path}: two policies have one name")
    return policies


def _policy(found: Any, where: str) -> RedactionPolicy:
    if not isinstance(found, dict):
        raise ConfigurationError(f"{where}: not a mapping")
    if unknown := set(found) - set(_MEMBERS):
        raise ConfigurationError(f"{where}: no such member: {', '.join(sorted(unknown))}")
    name, reason, days = found.get("name"), found.get("reason"), found.get("older_than_days")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"{where}: name is not lower-case letters, digits and dashes")
    if not isinstance(reason, str) or not reason:
        raise ConfigurationError(f"{where}: reason is missing")
    if isinstance(days, bool) or not isinstance(days, int) or days < 0:
        raise ConfigurationError(f"{where}: older_than_days is not a number of days")
    lists = {member: _texts(found, member, where) for member in _LISTS}
    if unknown := set(lists["families"]) - set(FAMILIES):
        raise ConfigurationError(f"{where}: no such family: {', '.join(sorted(unknown))}")
    look = found.get("value") or ""
    if not isinstance(look, str):
        raise ConfigurationError(f"{where}: value is not a text")
    rule = FieldRule(lists["fields"], lists["data_classes"], look)
    try:
        rule.check()
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    return RedactionPolicy(
        name, reason, rule, days, lists["tenants"], lists["families"], lists["actions"]
    )


def _texts(found: Mapping[str, Any], member: str, where: str) -> tuple[str, ...]:
    value = found.get(member, [])
    if not isinstance(value, list) or not all(isinstance(part, str) and part for part in value):
        raise ConfigurationError(f"{where}: {member} is not a list of texts")
    return tuple(value)
