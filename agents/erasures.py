"""Whether the database knows every erasure: a restored one must not give a person back.

What ``audit.redactions`` has and ``redaction_request`` lacks, a restore of the database has lost. No
worker starts then: it would seal and index with keys that were destroyed.
"""

from __future__ import annotations

import logging
from typing import Protocol
from uuid import UUID

from agents.journal import read_single_partition
from pipeline.codec.redaction_command import Mac, decode_command
from pipeline.domain.erasure import RedactionCommand
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import REDACTIONS_TOPIC
from pipeline.logging import log_event
from pipeline.settings import Settings

log = logging.getLogger(__name__)

_NAMED_MAX = 5


class KnownErasures(Protocol):
    """``sinks.leases.PostgresLeases``."""

    async def lost_erasures(self, commands: list[RedactionCommand]) -> list[UUID]:
        """The requests, of these commands, that the database does not show as it must."""
        ...


async def check_erasures(settings: Settings, known: KnownErasures, mac: Mac) -> None:
    """Compare the topic of commands with the database; ``mac`` as ``decode_command`` has it.

    Raises:
        ConfigurationError: Erasures were lost; they must be applied again before a worker may start.
        Unavailable: Broker or database do not answer; ask again.
    """
    commands: dict[UUID, RedactionCommand] = {}
    async for _position, record in read_single_partition(settings, REDACTIONS_TOPIC):
        if record is None:
            continue
        try:
            command = decode_command(record.value, mac)
        except ValueError as error:
            log_event(
                log, "command_foreign", level=logging.ERROR, offset=record.offset, error=error
            )
            continue
        commands[command.request_id] = command
    lost = await known.lost_erasures(list(commands.values()))
    if lost:
        named = ", ".join(str(request) for request in lost[:_NAMED_MAX])
        raise ConfigurationError(
            f"the database was restored from before {len(lost)} erasures ({named}); before a worker"
            " starts, run: audit-trail erase reapply"
        )
