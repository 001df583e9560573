"""The trail's own events about what people do to it, and how a command gets one into the ledger.

Authority is a leaf: a redaction or an expiry removes nothing before the ledger holds the event that
names the request and commits to the affected leaves. The same request gives the same event.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from pipeline.domain.errors import Unavailable
from pipeline.domain.orders import Order

_LOOK_S = 0.25

Event = Mapping[str, Any]


class InLedger(Protocol):
    """``sinks.removals.Removals.in_ledger``."""

    async def __call__(self, event_id: UUID) -> bool: ...


class Publish(Protocol):
    """Publishes an event of family ``system``; acknowledged by all in-sync replicas on return."""

    async def __call__(self, event: Event) -> None: ...


@dataclass(frozen=True, slots=True)
class Operator:
    """Who runs a command, as an actor of the trail: ``AUDIT_OPERATOR``, or account and host."""

    name: str
    tenant: str  # home tenant, whose key seals the name

    def actor(self) -> dict[str, Any]:
        """As an event has it: the name is sealed like anybody's."""
        return {"type": "user", "tenant": self.tenant, "id_type": "operator", "id": self.name}


def system_event(
    *,
    event_id: UUID,
    occurred_at_us: int,
    operation: str,
    action: str,
    tenant: str,
    operator: Operator,
    resources: Sequence[tuple[str, str]] = (),
    data_subjects: Sequence[Mapping[str, str]] = (),
    authority: Mapping[str, Any] | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """An event of family ``system``. ``resources`` are (type, opaque id): clear for ever, so no names.

    ``reason`` is free text: sealed to the operator.
    """
    return {
        "event_id": str(event_id),
        "occurred_at": occurred_at_us,
        "tenant": tenant,
        "action": action,
        "outcome": "success",
        "reason": reason,
        "producer": {"service": "audit-trail"},
        "actor": operator.actor(),
        "resources": [
            {"tenant": tenant, "type": kind, "id": identity} for kind, identity in resources
        ],
        "data_subjects": [dict(subject) for subject in data_subjects],
        "operation": operation,
        "authority": authority,
    }


def authority_event(order: Order, operator: Operator, *, tenant: str) -> dict[str, Any]:
    """The event that is an order's authority. ``tenant``: in whose trail it stands."""
    return system_event(
        event_id=order.event_id,
        occurred_at_us=order.requested_at_us,
        operation=order.kind,
        action=f"{order.kind}.order",
        tenant=tenant,
        operator=operator,
        resources=[("removal_request", str(order.request_id))],
        authority={
            "request_id": str(order.request_id),
            "leaves": order.count,
            "root": order.root.hex(),
            "order_hash": order.hash().hex(),
        },
        reason=order.reason,
    )


async def until_held(
    held: Callable[[], Awaitable[bool]],
    *,
    wait_s: float,
    look_s: float = _LOOK_S,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> bool:
    """Whether the ledger holds what was published: True as soon as it does, False when it does not
    after ``wait_s``. It is asked at least once; what ``held`` raises is raised.
    """
    deadline = monotonic() + wait_s
    while not await held():
        if monotonic() >= deadline:
            return False
        await sleep(look_s)
    return True


class Announcer:
    """Gets events into the ledger: publishes, then waits until a worker has stored them.

    Nothing is published twice that the ledger has; what was published by a run that ended is a
    duplicate, since the same request gives the same event.
    """

    def __init__(
        self,
        publish: Publish,
        in_ledger: InLedger,
        *,
        wait_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publish = publish
        self._in_ledger = in_ledger
        self._wait_s = wait_s
        self._sleep = sleep
        self._monotonic = monotonic

    async def __call__(self, event: Event) -> None:
        """Return once the event is a leaf.

        Raises:
            Unavailable: It is not yet: no worker runs, or it is behind. Call again later.
        """
        event_id = UUID(event["event_id"])
        if await self._in_ledger(event_id):
            return
        await self._publish(event)
        if not await until_held(
            lambda: self._in_ledger(event_id),
            wait_s=self._wait_s,
            sleep=self._sleep,
            monotonic=self._monotonic,
        ):
            raise Unavailable(
                "worker",
                f"event {event_id} in audit.raw.system is no leaf after {self._wait_s:.0f} s:"
                " does a worker run?",
            )
