"""The numbers of rewrites: what orders those who overwrite documents of the index (``sinks.index_rewrite``).

The database gives them, microseconds of its clock at least: they grow also over a restore from a backup.
"""

from __future__ import annotations

from pipeline.db.connection import Connection

_NEXT = "SELECT next_rewrite()"


async def next_number(connection: Connection) -> int:
    """A number that is higher than every one before, whoever asked. As audit_redactor.

    Raises:
        Unavailable: The database does not answer.
        ConfigurationError: It is not migrated, or the role may not.
    """
    rows = await connection.all(_NEXT)
    return int(rows[0][0])
