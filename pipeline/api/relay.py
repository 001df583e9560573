"""The relay: from a request's body to events that the brokers have.

In this order, and each step before anything is sent: token, rate, form, allow-list, contract, replay.
``receive`` returns when all in-sync replicas have every event of a batch. A refusal with a 4xx has
recorded nothing of it; with a 5xx some may be on their way, and the same ids sent again wait for the
same receipts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from audit_sdk import Audit, NotDelivered
from audit_sdk.identity import now_us

from pipeline.api.allowed import AllowedAction
from pipeline.api.events import RelayEvent, digest, fields_of, read_batch, repeated
from pipeline.api.problems import SEND_AGAIN, Flaw, Kind, Refusal, contract_flaws
from pipeline.api.rates import Rates
from pipeline.api.reading import parse
from pipeline.api.replays import Arrival, Replays, Taken
from pipeline.api.settings import BATCH_EVENTS_MAX
from pipeline.api.tokens import Principal, Tokens


@dataclass(frozen=True, slots=True)
class RelayParts:
    """What the relay is made of; every part thread-safe."""

    audit: Audit
    tokens: Tokens
    rates: Rates
    replays: Replays
    allowed: Mapping[str, AllowedAction]


class Relay:
    """Thread-safe. ``receive`` blocks: it is called in a thread of its own."""

    def __init__(
        self,
        parts: RelayParts,
        *,
        id_type: str,
        ack_timeout_s: float,
        retry_after_s: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._audit = parts.audit
        self._tokens = parts.tokens
        self._rates = parts.rates
        self._replays = parts.replays
        self._allowed = parts.allowed
        self._id_type = id_type
        self._ack_timeout_s = ack_timeout_s
        self._retry_after_s = retry_after_s
        self._monotonic = monotonic

    def receive(self, body: bytes, authorization: str | None) -> Sequence[Taken]:
        """Record a batch; the brokers have all of it on return.

        Raises:
            Refusal: With a status below 500 nothing was recorded.
        """
        principal = None if authorization is None else self._from_header(authorization)
        try:
            parsed = parse(body)
        except Refusal:
            if principal is not None:
                self._rates.take(principal, 1)
            raise
        principal = self._one_token(principal, parsed)
        given = parsed.get("events")
        count = len(given) if isinstance(given, list) else 1
        self._rates.take(principal, min(max(count, 1), BATCH_EVENTS_MAX))
        taken = self._replays.take(self._arrivals(parsed, principal))
        try:
            self._wait(taken)
        finally:
            self._replays.settle(taken)
        return taken

    def _from_header(self, authorization: str) -> Principal:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Refusal(Kind.TOKEN_MISSING, "send `Authorization: Bearer` and the token")
        return self._tokens.verify(token.strip())

    def _one_token(self, principal: Principal | None, parsed: Mapping[str, Any]) -> Principal:
        token = parsed.get("token")
        if principal is not None:
            if token is not None:
                self._rates.take(principal, 1)
                raise Refusal(Kind.TOKEN_TWICE, "leave one out")
            return principal
        if not isinstance(token, str):
            raise Refusal(
                Kind.TOKEN_MISSING, "in the header Authorization, or as `token` in the body"
            )
        return self._tokens.verify(token)

    def _arrivals(self, parsed: Mapping[str, Any], principal: Principal) -> list[Arrival]:
        events, flaws = read_batch(parsed)
        found = [*flaws, *repeated(events)]
        at_us = now_us()
        arrivals = []
        for at, event in enumerate(events):
            allowed = self._allowed.get(event.action)
            if allowed is None:
                found.append(Flaw(f"events.{at}.action", "allowed", "is not on the allow-list"))
                continue
            try:
                fields = fields_of(
                    event, allowed, principal, id_type=self._id_type, occurred_at_us=at_us
                )
            except ValueError:
                why = "must be a time with its offset (RFC 3339)"
                found.append(Flaw(f"events.{at}.client_time", "time", why))
                continue
            found += self._broken(at, event, allowed, fields)
            send = partial(self._audit.send, allowed.family, fields)
            arrivals.append(Arrival(event.event_id, digest(event, principal), send))
        if found:
            raise Refusal(Kind.INVALID_EVENTS, "see `errors`", flaws=found)
        return arrivals

    def _broken(
        self, at: int, event: RelayEvent, allowed: AllowedAction, fields: Mapping[str, Any]
    ) -> list[Flaw]:
        """What the contract finds, at the places of the body."""
        flaws = contract_flaws(at, self._audit.check(allowed.family, fields))
        if not self._replays.is_current(event.event_id):
            why = "its time is too far from now: make the id when it happens, and send soon"
            flaws.append(Flaw(f"events.{at}.event_id", "window", why))
        return flaws

    def _wait(self, taken: Sequence[Taken]) -> None:
        deadline = self._monotonic() + self._ack_timeout_s
        for one in taken:
            if one.receipt is None:
                continue
            try:
                one.receipt.wait(max(deadline - self._monotonic(), 0))
            except NotDelivered:
                raise Refusal(
                    Kind.BROKER_AWAY, SEND_AGAIN, retry_after_s=self._retry_after_s
                ) from None
