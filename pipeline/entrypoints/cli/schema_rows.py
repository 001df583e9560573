"""Registered schemas, kept in the ledger: events stay readable when the registry is gone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.contracts.compatibility import fingerprint
from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.announcing import operator_of
from pipeline.entrypoints.cli.stores import call_operations
from sinks.recorded_schemas import RecordedSchema

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
        ConfigurationError: There is no table yet, or the ids are of another registry.

    """

    async def remember(operations: Operations) -> None:
        for state, candidate in zip(states, candidates, strict=True):
            if state.schema_id is not None and state.version is not None:
                row = RecordedSchema(
                    state.schema_id,
                    state.subject,
                    state.version,
                    state.family,
                    candidate.text,
                    fingerprint(json.loads(candidate.text)),
                    operator_of(settings),
                )
                if not await operations.schemas.record(row):
                    _check_same(row, await operations.schemas.all())

    call_operations(settings, remember)


def _check_same(row: RecordedSchema, recorded: Sequence[RecordedSchema]) -> None:
    """What stands there under the same id, or as the same version, must be the same schema."""
    for known in recorded:
        same_id = known.schema_id == row.schema_id
        same_version = (known.subject, known.version) == (row.subject, row.version)
        if (same_id or same_version) and not (
            same_id and same_version and fingerprint(json.loads(known.schema)) == row.fingerprint
        ):
            raise ConfigurationError(
                f"the ledger recorded schema id {known.schema_id} as {known.subject} version"
                f" {known.version}; this registry has id {row.schema_id} for {row.subject} version"
                f" {row.version}: it is not the registry that gave the ledger's ids"
                " (docs/runbooks/schema-registry.md)"
            )
