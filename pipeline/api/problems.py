"""Every refusal of the relay, as RFC 9457 problem details (``application/problem+json``).

A refusal is one of ``Kind``: its name ends the problem's ``type``, labels the metric, and decides the
status. Details never hold a token or a value of an event.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any, Final

from audit_sdk import Problem
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"
ERRORS_MAX: Final = 100
_PATH_MAX_CHARS: Final = 200
_TYPE: Final = "urn:audit-trail:problem:"
_REALM: Final = 'Bearer realm="audit-relay"'
SEND_AGAIN: Final = (
    "some may be recorded already; send the same events with the same ids again, which records none"
    " twice"
)


class Kind(Enum):
    """(name, status, title)."""

    MALFORMED_BODY = ("malformed-body", 400, "The body is no JSON that the relay reads")
    TOKEN_TWICE = ("token-twice", 400, "A token is given in the header and in the body")
    TOKEN_MISSING = ("token-missing", 401, "A token is required")
    TOKEN_REFUSED = ("token-refused", 401, "The token is not accepted")
    ORIGIN_REFUSED = ("origin-refused", 403, "Pages of this origin may not send")
    NOT_FOUND = ("not-found", 404, "There is nothing here")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "Not by this method")
    BODY_TIMEOUT = ("body-timeout", 408, "The body did not come in time")
    ID_CONFLICT = ("event-id-conflict", 409, "An event id belongs to another event")
    BODY_TOO_LARGE = ("body-too-large", 413, "The body is too large")
    CONTENT_TYPE = ("content-type", 415, "The body is of another type")
    INVALID_EVENTS = ("invalid-events", 422, "The batch breaks the contract; nothing was recorded")
    RATE_EXCEEDED = ("rate-exceeded", 429, "Too many events")
    INTERNAL = ("internal", 500, "Something went wrong in the relay")
    PARTLY_RECORDED = ("partly-recorded", 500, "Some events are recorded and others are not")
    BROKER_AWAY = ("broker-away", 503, "The events are not confirmed yet")
    ISSUER_AWAY = ("issuer-away", 503, "Tokens cannot be checked now")
    BUSY = ("busy", 503, "The relay is busy")

    @property
    def label(self) -> str:
        return self.value[0]

    @property
    def status(self) -> int:
        return self.value[1]

    @property
    def title(self) -> str:
        return self.value[2]


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that is wrong with a body: where, by which rule, and what would be right."""

    path: str
    rule: str
    detail: str

    def as_dict(self) -> dict[str, str]:
        """Without half of a surrogate pair or a control character in a name that a client made up."""
        path = self.path[:_PATH_MAX_CHARS].encode("unicode_escape").decode("ascii")
        return {"path": path, "rule": self.rule, "detail": self.detail}


def contract_flaws(at: int, problems: Iterable[Problem]) -> list[Flaw]:
    """What the contract finds wrong with the event ``at`` of a batch, at the places of the body."""
    return [
        Flaw(
            f"events.{at}.{'reason_code' if one.path == 'failure_code' else one.path}",
            one.rule,
            one.detail,
        )
        for one in problems
    ]


class Refusal(Exception):
    """The request ends here, with this problem; ``retry_after_s``: the same one may be sent again."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        flaws: Sequence[Flaw] = (),
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{kind.label}: {detail}")
        self.kind = kind
        self.detail = detail
        self.flaws = tuple(flaws)
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})


def problem(refusal: Refusal) -> Response:
    """The answer. A 401 says how to authenticate (RFC 6750 §3)."""
    kind = refusal.kind
    body: dict[str, Any] = {
        "type": _TYPE + kind.label,
        "title": kind.title,
        "status": kind.status,
        "detail": refusal.detail,
    }
    if refusal.flaws:
        body["errors"] = [flaw.as_dict() for flaw in refusal.flaws[:ERRORS_MAX]]
    headers = dict(refusal.headers)
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if kind is Kind.TOKEN_MISSING:
        headers["WWW-Authenticate"] = _REALM
    elif kind is Kind.TOKEN_REFUSED:
        headers["WWW-Authenticate"] = f'{_REALM}, error="invalid_token"'
    elif kind is Kind.TOKEN_TWICE:
        headers["WWW-Authenticate"] = f'{_REALM}, error="invalid_request"'
    return Response(json.dumps(body), kind.status, headers, MEDIA_TYPE)


def of_status(status: int, headers: Mapping[str, str] | None) -> Refusal:
    """What the framework itself refuses: no such path, no such method."""
    known = {
        HTTPStatus.NOT_FOUND: (Kind.NOT_FOUND, "no such path"),
        HTTPStatus.METHOD_NOT_ALLOWED: (Kind.METHOD_NOT_ALLOWED, "see the header Allow"),
    }
    kind, detail = known.get(
        HTTPStatus(status), (Kind.MALFORMED_BODY, "the request cannot be read")
    )
    return Refusal(kind, detail, headers=headers)
