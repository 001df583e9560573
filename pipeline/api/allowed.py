"""The allow-list: which actions a browser may record, of which family, with which fixed fields.

A JSON file, ``{"invoice.download": {"family": "data-access", "operation": "download"}}``. It is held to
the contract of events when the relay starts, so that no request can fail for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from audit_sdk import contract, validate

from pipeline.api.problems import Refusal
from pipeline.api.reading import parse
from pipeline.domain.errors import ConfigurationError

FILE_MAX_BYTES: Final = 1024 * 1024
# Said by the token, the request, the body or the relay itself: never fixed by a file.
_NOT_FIXED: Final = frozenset(
    {"event_id", "occurred_at", "tenant", "action", "outcome", "reason_code", "producer", "actor"}
    | {
        "resources",
        "source",
        "request",
        "session",
        "labels",
        "metadata",
        "imported",
        "failure_code",
    }
)
_EVENT: Final[Mapping[str, Any]] = {
    "event_id": "01966f3e-7a10-7c3b-9d2e-5b7f0c1a2d39",
    "occurred_at": 1_790_000_000_000_000,
    "tenant": "acme",
    "outcome": "success",
    "producer": {"service": "audit-relay"},
    "actor": {"type": "user", "tenant": "acme", "id_type": "user_id", "id": "u-1"},
    "resources": [{"tenant": "acme", "type": "record", "id": "r-1"}],
}


@dataclass(frozen=True, slots=True)
class AllowedAction:
    """One action. ``needs_resources``: an event without a resource would break its family's rules."""

    action: str
    family: str
    fields: Mapping[str, Any]
    needs_resources: bool


def load_allowed(path: Path | None) -> Mapping[str, AllowedAction]:
    """The actions of the file, by name.

    Raises:
        ConfigurationError: There is no such file, or it breaks the contract; says where.
    """
    if path is None:
        raise ConfigurationError(
            "AUDIT_RELAY_ALLOW_FILE is not set: name a file of allowed actions"
        )
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"AUDIT_RELAY_ALLOW_FILE: {path} cannot be read") from error
    if len(text) > FILE_MAX_BYTES:
        raise ConfigurationError(
            f"AUDIT_RELAY_ALLOW_FILE: {path} is larger than {FILE_MAX_BYTES} bytes"
        )
    try:
        listed = parse(text)
    except Refusal as refusal:
        raise ConfigurationError(f"AUDIT_RELAY_ALLOW_FILE: {path}: {refusal.detail}") from None
    if not listed:
        raise ConfigurationError(f"AUDIT_RELAY_ALLOW_FILE: {path} allows no action")
    return {action: _allowed(action, one, path) for action, one in listed.items()}


def _allowed(action: str, one: Any, path: Path) -> AllowedAction:
    where = f"AUDIT_RELAY_ALLOW_FILE: {path}: {action}"
    families = [name for name in contract().families if name != "system"]
    if not isinstance(one, dict) or one.get("family") not in families:
        raise ConfigurationError(f"{where}: family must be one of {', '.join(families)}")
    fields = {name: value for name, value in one.items() if name != "family"}
    if taken := sorted(_NOT_FIXED & fields.keys()):
        raise ConfigurationError(f"{where}: {', '.join(taken)} cannot be fixed")
    event = {**_EVENT, "action": action, **fields}
    if wrong := validate(one["family"], event):
        raise ConfigurationError(f"{where}: " + "; ".join(map(str, wrong)))
    bare = {name: value for name, value in event.items() if name != "resources"}
    return AllowedAction(action, one["family"], fields, bool(validate(one["family"], bare)))
