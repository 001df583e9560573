"""Schemas that were registered, as the ledger has them: what an id must mean for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.db.connection import Connection

_RECORD = """
INSERT INTO schema_versions (schema_id, subject, version, family, schema, fingerprint, registered_by)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_LIST = """
SELECT schema_id, subject, version, family, schema::text, fingerprint, registered_by, registered_at
FROM schema_versions ORDER BY subject, version
"""


@dataclass(frozen=True, slots=True)
class RecordedSchema:
    """A row of ``schema_versions``."""

    schema_id: int
    subject: str
    version: int
    family: str
    schema: str
    fingerprint: str
    registered_by: str
    registered_at: datetime | None = None


class RecordedSchemas:
    """``schema_versions`` over a connection that belongs to whoever made it. Every call may raise
    ``Unavailable``.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def record(self, schema: RecordedSchema) -> bool:
        """Note a registered schema, durable on return; False when its id or version is noted already."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(
                _RECORD,
                [
                    schema.schema_id,
                    schema.subject,
                    schema.version,
                    schema.family,
                    schema.schema,
                    schema.fingerprint,
                    schema.registered_by,
                ],
            )
            return cursor.rowcount == 1

    async def all(self) -> list[RecordedSchema]:
        """Every one, by subject and version."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_LIST)
            return [RecordedSchema(*row) for row in await cursor.fetchall()]
