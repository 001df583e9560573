"""A batch as a browser sends it, and the audit events that it becomes.

Of a browser comes what it saw: id, action, outcome, things, labels. Who, for which tenant, from where
and when come from the token, the connection and the relay's clock. What a body has beyond is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from audit_sdk import contract
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from pipeline.api.allowed import AllowedAction
from pipeline.api.problems import ERRORS_MAX, Flaw
from pipeline.api.settings import BATCH_EVENTS_MAX
from pipeline.api.tokens import Principal

_LIMITS = contract().limits
NO_CONTROL: Final = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+$"
UUID7: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"

_printable = {"pattern": NO_CONTROL}
Text = Annotated[
    str, Field(min_length=1, max_length=_LIMITS.text_chars, json_schema_extra=_printable)
]
_bounded_key = Field(min_length=1, max_length=_LIMITS.label_key_bytes)
_bounded_value = Field(min_length=1, max_length=_LIMITS.label_value_bytes)
Labels = Annotated[
    dict[Annotated[str, _bounded_key], Annotated[str, _bounded_value]],
    Field(max_length=_LIMITS.items),
    # Said here because a pattern of keys would let every value pass under another key.
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": _LIMITS.items,
            "propertyNames": {"minLength": 1, "maxLength": _LIMITS.label_key_bytes, **_printable},
            "additionalProperties": {
                "type": "string",
                "minLength": 1,
                "maxLength": _LIMITS.label_value_bytes,
                **_printable,
            },
        }
    ),
]
# What a model finds wrong, in the words of the contract.
_RULES: Final[Mapping[str, str]] = {
    "missing": "required",
    "extra_forbidden": "unknown_field",
    "string_too_long": "text_chars",
    "string_too_short": "empty",
    "string_pattern_mismatch": "pattern",
    "string_unicode": "unicode",
    "too_long": "items",
    "too_short": "items",
    "literal_error": "symbol",
}


class RelayResource(BaseModel):
    """A thing that was acted upon, of the token's tenant."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Text = Field(description="Kind of thing, from the application's closed list.")
    id: Text | None = Field(
        None, description="Opaque id; stored in clear, so never a name, an address or a path."
    )
    name: Text | None = Field(None, description="What people call it.")
    path: Text | None = Field(None, description="Where it lies: a path or URL.")


class RelayEvent(BaseModel):
    """What happened in a page. Actor, tenant, address and time are not its to say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    event_id: str = Field(
        pattern=UUID7,
        description="UUID version 7, lower case, made once and kept over all retries.",
    )
    action: str = Field(description="An action of the relay's allow-list.")
    outcome: Literal["success", "failure", "unknown"] = Field(
        "success", description="Whether it took place."
    )
    resources: list[RelayResource] = Field(
        [], max_length=_LIMITS.items, description="The things that were acted upon."
    )
    labels: Labels = Field(
        {},
        description=f"Keys of at most {_LIMITS.label_key_bytes} and values of at most"
        f" {_LIMITS.label_value_bytes} bytes as UTF-8.",
    )
    reason_code: Text | None = Field(
        None, description="Why, from the application's closed list of codes."
    )
    client_time: str | None = Field(
        None,
        max_length=40,
        json_schema_extra={"format": "date-time"},
        description="The page's own clock, with its offset; kept beside the time of receipt.",
    )


class RelayBatch(BaseModel):
    """1 to 100 events. ``token``: for who cannot set a header (sendBeacon)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    events: list[RelayEvent] = Field(min_length=1, max_length=BATCH_EVENTS_MAX)
    token: str | None = Field(None, description="The token, if there is no header Authorization.")


def read_batch(parsed: Mapping[str, Any]) -> tuple[Sequence[RelayEvent], Sequence[Flaw]]:
    """The events of a body, or what is wrong with its form."""
    try:
        return RelayBatch.model_validate(parsed).events, ()
    except ValidationError as error:
        return (), [
            Flaw(
                ".".join(str(part) for part in one["loc"] if part != "[key]"),
                _RULES.get(one["type"], one["type"]),
                one["msg"],
            )
            for one in error.errors(include_url=False, include_context=False, include_input=False)[
                :ERRORS_MAX
            ]
        ]


def fields_of(
    event: RelayEvent,
    allowed: AllowedAction,
    principal: Principal,
    *,
    id_type: str,
    occurred_at_us: int,
) -> dict[str, Any]:
    """The audit event, but for what the SDK adds (producer, address, user agent, request).

    Raises:
        ValueError: ``client_time`` is no time.
    """
    tenant = principal.tenant
    fields: dict[str, Any] = {
        **allowed.fields,
        "event_id": event.event_id,
        "occurred_at": occurred_at_us,
        "tenant": tenant,
        "action": event.action,
        "outcome": event.outcome,
        "actor": {
            "type": "user",
            "tenant": tenant,
            "id_type": id_type,
            "id": principal.actor_id,
        },
        "reason_code": event.reason_code,
    }
    if allowed.family == "authentication" and event.outcome == "failure":
        fields["failure_code"] = event.reason_code
    if event.resources:
        fields["resources"] = [
            {"tenant": tenant, **one.model_dump(exclude_none=True)} for one in event.resources
        ]
    if event.labels:
        fields["labels"] = event.labels
    if principal.issuer is not None:
        fields["session"] = {"issuer": principal.issuer}
    if event.client_time is not None:
        fields["metadata"] = {"client_time": _utc(event.client_time)}
    return fields


def digest(event: RelayEvent, principal: Principal) -> bytes:
    """Of actor and content: the same event sent again has the same one."""
    said = [principal.tenant, principal.actor_id, event.model_dump()]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()


def repeated(events: Iterable[RelayEvent]) -> list[Flaw]:
    """Ids that a batch has twice."""
    seen: set[str] = set()
    flaws = []
    for at, event in enumerate(events):
        if event.event_id in seen:
            flaws.append(Flaw(f"events.{at}.event_id", "unique", "stands twice in the batch"))
        seen.add(event.event_id)
    return flaws


def _utc(text: str) -> str:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no offset")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
