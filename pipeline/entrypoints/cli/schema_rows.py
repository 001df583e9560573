"""Registered schemas, kept in the ledger: events stay readable when the registry is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.entrypoints.cli.stores import call_operations

if TYPE_CHECKING:
    from pipeline.entrypoints.cli.schemas import Candidate, SchemaState
    from pipeline.settings import Settings
    from sinks.operations import Operations


def remember_versions(
    settings: Settings, states: Sequence[SchemaState], candidates: Sequence[Candidate]
) -> None:
    """Keep what is registered; what is kept already stays as it is. Durable on return.

    Raises:
        Unavailable: The database does not answer; registering again keeps it then.
        ConfigurationError: There is no table yet.

    """

    async def remember(operations: Operations) -> None:
        for state, candidate in zip(states, candidates, strict=True):
            if state.schema_id is not None and state.version is not None:
                await operations.record_schema(
                    state.schema_id,
                    subject=state.subject,
                    version=state.version,
                    family=state.family,
                    schema=candidate.text,
                )

    call_operations(settings, remember)
