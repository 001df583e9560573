"""The redaction agent: what ``audit.redactions`` orders becomes tombstones that every worker holds.

It acts on nothing that ``redaction_request`` does not show as carried out, so a record that somebody
else wrote changes nothing. It never lets an exception out: Faust would ack the record and go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import faust

from agents.tables import Tombstones
from pipeline.codec.redaction_command import Mac, decode_command
from pipeline.domain.erasure import RedactionCommand
from pipeline.domain.errors import Unavailable
from pipeline.domain.logs import REDACTIONS_TOPIC
from pipeline.logging import log_event

log = logging.getLogger(__name__)

# When the request's keys were destroyed (µs), if the database shows just these subjects under it.
ErasedAt = Callable[[RedactionCommand], Awaitable[int | None]]

_AGAIN_S: Final = 1.0


def register(
    app: faust.App,
    tombstones: Tombstones,
    erased_at: ErasedAt,
    mac: Mac,
    on_change: Callable[[], None],
) -> None:
    """Keep the table of tombstones in this app; ``mac`` as ``decode_command`` has it."""
    tombstones.register(app)
    topic = app.topic(
        REDACTIONS_TOPIC,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
    )

    @app.agent(topic, name="redaction")
    async def redaction(stream: Any) -> None:
        async for event in stream.events():
            await _keep(app, tombstones, erased_at, mac, event)
            on_change()


async def _keep(
    app: Any, tombstones: Tombstones, erased_at: ErasedAt, mac: Mac, event: Any
) -> None:
    offset = event.message.offset
    try:
        command = decode_command(event.value, mac)
    except ValueError as error:
        log_event(log, "command_foreign", level=logging.ERROR, offset=offset, error=error)
        return
    request = str(command.request_id)
    while True:
        try:
            erased_at_us = await erased_at(command)
            break
        except Unavailable as outage:
            if app.should_stop or app.rebalancing:
                # Nothing is lost but a shortcut: the database answers for the subjects itself.
                log_event(log, "command_left", level=logging.WARNING, request=request, error=outage)
                return
        await asyncio.sleep(_AGAIN_S)
    if erased_at_us is None:
        log_event(log, "command_not_carried_out", request=request, offset=offset)
        return
    for subject_hash in command.subject_hashes:
        tombstones.note(subject_hash, request, erased_at_us)
    log_event(log, "tombstones_kept", request=request, subjects=len(command.subject_hashes))
