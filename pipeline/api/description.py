"""The OpenAPI description, as exact as JSON Schema can be: what it allows is accepted.

Which fields an action needs depends on its family; so the allow-list's actions are told apart in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from pipeline.api.allowed import AllowedAction
from pipeline.api.events import RelayBatch
from pipeline.api.problems import ERRORS_MAX, MEDIA_TYPE, Kind
from pipeline.api.reading import JSON, TEXT

PATH: Final = "/v1/relay/events"
_REF: Final = "#/components/schemas/"
_SENT_BACK: Final = {
    Kind.RATE_EXCEEDED.status: "Retry-After",
    503: "Retry-After",
    401: "WWW-Authenticate",
}
_STATUSES: Final = (400, 401, 403, 408, 409, 413, 415, 422, 429, 500, 503)
_ABOUT: Final = (
    "Takes events of pages and apps for the audit trail. Actor and tenant come from the token, address"
    " and user agent from the connection, the time from the relay's clock. 202 says that the brokers have"
    " the whole batch; after a 4xx nothing of it is recorded; after a 5xx some of it may be, and the same"
    " events are sent again. An event id that is sent again records nothing twice."
)


def responses() -> dict[int | str, dict[str, Any]]:
    """Every status that the relay answers a batch with, besides 202."""
    return {status: _problem_response(status) for status in _STATUSES}


def request_body() -> dict[str, Any]:
    """Both media types hold the same JSON; text/plain needs no question before (CORS)."""
    schema = {"$ref": _REF + "RelayBatch"}
    example = {
        "events": [
            {
                "event_id": "01966f3e-7a10-7c3b-9d2e-5b7f0c1a2d39",
                "action": "invoice.download",
                "resources": [{"type": "invoice", "id": "i-58d1"}],
            }
        ]
    }
    media = {"schema": schema, "example": example}
    return {"required": True, "content": {JSON: media, TEXT: media}}


def complete(description: dict[str, Any], allowed: Mapping[str, AllowedAction]) -> dict[str, Any]:
    """The framework's description with the models, the problems and the ways to authenticate."""
    _, models = models_json_schema([(RelayBatch, "validation")], ref_template=_REF + "{model}")
    schemas: dict[str, Any] = models["$defs"]
    event = schemas.pop("RelayEvent")
    kinds = _event_kinds(event, allowed.values())
    schemas.update(kinds)
    batch = schemas["RelayBatch"]["properties"]
    batch["events"]["items"] = {"anyOf": [{"$ref": _REF + name} for name in kinds]}
    components = description.setdefault("components", {})
    components.setdefault("schemas", {}).update(schemas | {"Problem": _problem_schema()})
    components["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "The application's own token, or a relay token. Without this header the token"
            " is `token` in the body.",
        }
    }
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    description["paths"][PATH]["post"]["security"] = [{"token": []}]
    description["info"]["description"] = _ABOUT
    return description


def _event_kinds(
    event: Mapping[str, Any], allowed: Iterable[AllowedAction]
) -> dict[str, dict[str, Any]]:
    """The event's schema, once per kind of what an action needs beyond the id."""
    grouped: dict[str, list[AllowedAction]] = {}
    for one in allowed:
        if one.family == "authentication":
            grouped.setdefault("SessionEvent", []).append(one)
            grouped.setdefault("FailedSessionEvent", []).append(one)
        else:
            name = "ResourceEvent" if one.needs_resources else "PlainEvent"
            grouped.setdefault(name, []).append(one)
    kinds = {}
    for name, actions in sorted(grouped.items()):
        kind = deepcopy(dict(event))
        kind["title"] = name
        kind["required"] = ["event_id", "action"]
        kind["properties"]["action"]["enum"] = sorted(one.action for one in actions)
        if name == "ResourceEvent":
            kind["required"].append("resources")
            kind["properties"]["resources"]["minItems"] = 1
            kind["properties"]["resources"].pop("default", None)
        if name == "SessionEvent":
            kind["properties"]["outcome"]["enum"] = ["success", "unknown"]
        if name == "FailedSessionEvent":
            kind["required"] += ["outcome", "reason_code"]
            kind["properties"]["outcome"] = {"const": "failure"}
            (text,) = (
                one
                for one in kind["properties"]["reason_code"]["anyOf"]
                if "type" in one and one["type"] == "string"
            )
            kind["properties"]["reason_code"] = text
        kinds[name] = kind
    return kinds


def _problem_response(status: int) -> dict[str, Any]:
    titles = [kind.title for kind in Kind if kind.status == status]
    response: dict[str, Any] = {
        "description": "; ".join(titles) + ".",
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF + "Problem"}}},
    }
    header = _SENT_BACK.get(status)
    if header is not None:
        said = {"type": "integer", "minimum": 1} if header == "Retry-After" else {"type": "string"}
        response["headers"] = {header: {"schema": said}}
    return response


def _problem_schema() -> dict[str, Any]:
    flaw = {
        "type": "object",
        "required": ["path", "rule", "detail"],
        "properties": {name: {"type": "string"} for name in ("path", "rule", "detail")},
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "description": "RFC 9457. `errors` says where and by which rule a body is wrong.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {"type": "array", "items": flaw, "maxItems": ERRORS_MAX},
        },
        "additionalProperties": False,
    }
