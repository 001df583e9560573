"""Telling the trail what a command did: an event of the family ``system``, and the wait for its leaf."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pipeline.compliance.trail_events import (
    Announcer,
    Event,
    InLedger,
    Operator,
    system_event,
    until_held,
)
from pipeline.db.connection import Connection
from pipeline.domain.errors import AuditTrailError
from pipeline.domain.logs import SYSTEM_FAMILY
from pipeline.entrypoints.cli.version import product_version

if TYPE_CHECKING:
    from pipeline.settings import Settings

_LOOK_EVERY_S: Final = 0.5
_HELD: Final = "SELECT count(*) FROM leaves WHERE event_id = ANY (%s)"


class NotHeld(AuditTrailError):
    """The ledger did not take the event in time: what was to follow it was not done."""


def operator_of(settings: Settings) -> str:
    """Who runs the command: AUDIT_OPERATOR, or account and host."""
    return settings.operator or f"{getpass.getuser()}@{socket.gethostname()}"


def command_event(
    settings: Settings, tenant: str, operation: str, action: str, **fields: Any
) -> dict[str, Any]:
    """An event about what a person did with a command, now; its actor is the operator.

    Beyond ``system_event`` it says which release ran: it is made once, while an order's event is made
    again and must come out the same wherever that is. It does not say on which host, which may be the
    operator's own device. ``fields`` replace or add.
    """
    return {
        **system_event(
            event_id=uuid7(),
            occurred_at_us=time.time_ns() // 1000,
            operation=operation,
            action=action,
            tenant=tenant,
            operator=Operator(operator_of(settings), tenant),
        ),
        "producer": {"service": "audit-trail", "version": product_version()},
        **fields,
    }


def uuid7() -> UUID:
    """A UUID of version 7: it sorts by time. Source: RFC 9562 §5.7."""
    raw = (time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10)
    number = int.from_bytes(raw, "big")
    number = number & ~(0xF << 76) | 0x7 << 76
    return UUID(int=number & ~(0x3 << 62) | 0x2 << 62)


async def tell_trail(
    settings: Settings, events: Sequence[Mapping[str, Any]], *, timeout_s: float
) -> None:
    """Publish events of the family ``system`` and return once the ledger holds each as a leaf.

    Raises:
        NotHeld: It does not in time: no worker runs, or it refused one (dead letter).
        ConfigurationError: The schema is not registered.
        Unavailable: A server does not answer; the events may be there all the same.
    """
    await asyncio.to_thread(publish_system, settings, events)
    ids = [UUID(event["event_id"]) for event in events]
    connection = Connection(
        settings.database_url.get_secret_value(),
        name="announcing",
        timeout_s=settings.request_timeout_s,
    )

    async def all_held() -> bool:
        async with connection.session() as session:
            row = await (await session.execute(_HELD, [ids])).fetchone()
        return row is not None and row[0] == len(ids)

    try:
        if not await until_held(all_held, wait_s=timeout_s, look_s=_LOOK_EVERY_S):
            raise NotHeld(
                f"the ledger did not take the event about this within {timeout_s:.0f} s, so"
                " nothing more was done: is a worker running? (audit-trail status,"
                " audit-trail dead-letter list)"
            )
    finally:
        await connection.close()


def announcer(settings: Settings, in_ledger: InLedger) -> Announcer:
    """Gets events into the ledger one by one, each waited for as long as AUDIT_TRAIL_WAIT_S says."""

    async def publish(event: Event) -> None:
        await asyncio.to_thread(publish_system, settings, [event])  # the client blocks

    return Announcer(publish, in_ledger, wait_s=settings.trail_wait_s)


def publish_system(settings: Settings, events: Sequence[Mapping[str, Any]]) -> None:
    """Publish events of the family ``system``; acknowledged by all in-sync replicas on return.

    Raises:
        ConfigurationError: The schema is not registered.
        Unavailable: The broker does not answer; some may be there.
    """
    from pipeline.entrypoints.cli.publishing import Publisher
    from pipeline.entrypoints.cli.schema_ids import registered_ids
    from pipeline.importers.encode import EventEncoder

    encoder = EventEncoder(registered_ids(settings, [SYSTEM_FAMILY]))
    try:
        records = [encoder.encode(SYSTEM_FAMILY, dict(event)) for event in events]
    except ValueError as error:
        raise RuntimeError("an event of our own breaks its schema") from error
    with Publisher(settings) as publisher:
        for record in records:
            publisher.publish(record.topic, key=record.key, value=record.value)
