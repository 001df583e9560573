"""After a restore of the database: erasures that it lost are carried out again, before a worker starts.

The topic of commands says which; the trail's own leaf, in the archive or the ledger, says whether it may:
a command without a leaf that names its request and commits to just its subjects is not believed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pipeline.compliance.erasure_parts import Tools
from pipeline.domain.erasure import (
    OPERATION,
    SUBJECTS,
    LeafPlace,
    RedactionCommand,
    Step,
    subjects_digest,
)
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import SYSTEM_TOPIC, LogName
from pipeline.domain.records import SealedEvent
from sinks.archive_reader import ArchiveReader

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Reapplied:
    """What became of one command: ``known``, ``applied`` or ``no leaf``."""

    request_id: UUID
    outcome: str


async def reapply_lost(tools: Tools, archive: ArchiveReader) -> list[Reapplied]:
    """Every command, in the order of the topic. What was applied is durable on return, and goes on with
    ``resume`` once a worker runs.

    Raises:
        Unavailable: Call again.
    """
    outcomes = []
    for command in await asyncio.to_thread(lambda: list(tools.brokers.commands())):
        outcome = (
            "known" if await _is_known(tools, command) else await _apply(tools, archive, command)
        )
        outcomes.append(Reapplied(command.request_id, outcome))
    return outcomes


async def _is_known(tools: Tools, command: RedactionCommand) -> bool:
    try:
        request = await tools.store.get(command.request_id)
    except ConfigurationError:
        return False
    return request.epoch is not None or command.erased_at_us is None


async def _apply(tools: Tools, archive: ArchiveReader, command: RedactionCommand) -> str:
    event = await _leaf(tools, archive, command.leaf)
    if event is None or not _allows(event.clear, command):
        return "no leaf"
    at_us = command.erased_at_us if command.erased_at_us is not None else command.ordered_at_us
    await tools.store.reapply(
        command.request_id,
        tenant=command.tenant,
        id_types=command.id_types,
        subject_hashes=command.subject_hashes,
        subject_refs=command.subject_refs,
        raw_key_hashes=command.raw_key_hashes,
        erased_at=_EPOCH + timedelta(microseconds=at_us),
    )
    leaf = {"log": command.leaf.log, "leaf_index": command.leaf.leaf_index}
    await tools.store.note(command.request_id, Step.LEAF, leaf)
    await tools.store.note(command.request_id, Step.ORDERED, {})
    await tools.store.note(command.request_id, Step.KEYS, {})
    if command.deleted_below:
        await tools.store.note(
            command.request_id, "cut before", {"deleted_below": dict(command.deleted_below)}
        )
    return "applied"


def _allows(clear: Any, command: RedactionCommand) -> bool:
    wanted = subjects_digest(command.subject_hashes).hex()
    named = {
        clear.get(path.removesuffix("type") + "id")
        for path, value in clear.items()
        if path.startswith("resources.") and path.endswith(".type") and value == SUBJECTS
    }
    return (
        clear.get("operation") == OPERATION
        and clear.get("ticket") == str(command.request_id)
        and clear.get("tenant") == command.tenant
        and named == {wanted}
    )


async def _leaf(tools: Tools, archive: ArchiveReader, place: LeafPlace) -> SealedEvent | None:
    """From the archive, which nobody can have changed; from the ledger, if it is not there yet."""
    try:
        name = LogName.parse(place.log)
    except ValueError:
        return None
    if name.topic != SYSTEM_TOPIC:
        return None
    async for found in archive.ranges(name, place.leaf_index):
        if found.info.first_leaf <= place.leaf_index < found.info.next_leaf:
            leaves = await archive.read(found, 0)
            return leaves.events[place.leaf_index - leaves.first_leaf]
        break
    for head in await tools.store.heads_after_erasure():
        if head.name == place.log:
            _name, leaves_there = await tools.ledger.read_some(head.log_id, [place.leaf_index])
            return leaves_there[0][1] if leaves_there else None
    return None
