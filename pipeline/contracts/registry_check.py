"""Whether a registry still says what the ledger recorded of it.

An id is all that an event's bytes say of their schema. A registry that was emptied, restored or
replaced gives ids anew: the same id would then decode old bytes, and new ones, under another schema.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from pipeline.contracts.compatibility import fingerprint
from pipeline.contracts.fields import marks
from pipeline.domain.errors import InvalidRecord


class Recorded(Protocol):
    """``sinks.recorded_schemas.RecordedSchema``."""

    @property
    def schema_id(self) -> int: ...

    @property
    def subject(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def schema(self) -> str: ...


# (schema id, subject) → the text that the registry has.
_AT_ONCE = 8  # questions to the registry

AskRegistry = Callable[[int, str], Awaitable[str]]


async def differences(recorded: Iterable[Recorded], ask: AskRegistry) -> list[str]:
    """A sentence per recorded schema that the registry lacks or has otherwise; nothing: all is well.

    Compared by what decides how bytes are read and values sealed: the Parsing Canonical Form and the
    marks of personal data. Registries may drop the rest.

    Raises:
        Unavailable: The registry does not answer.
    """
    turns = asyncio.Semaphore(_AT_ONCE)

    async def compared(known: Recorded) -> str:
        async with turns:
            return await _difference(known, ask)

    return [found for found in await asyncio.gather(*map(compared, recorded)) if found]


async def _difference(known: Recorded, ask: AskRegistry) -> str:
    what = f"schema id {known.schema_id} ({known.subject} version {known.version})"
    try:
        text = await ask(known.schema_id, known.subject)
    except InvalidRecord as refusal:
        return f"{what} is not in the registry: {refusal}"
    has, had = json.loads(text), json.loads(known.schema)
    if fingerprint(has) != fingerprint(had):
        return f"{what} is another schema in the registry than was recorded"
    if marks(has) != marks(had):
        return f"{what} has other marks of personal data in the registry"
    return ""
