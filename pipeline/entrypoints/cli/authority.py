"""Who may say that something is gone by right, over the stores of the settings, as the auditor's role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pipeline.compliance.authority import Authorities
from pipeline.compliance.authority_reader import AuthorityReader
from pipeline.db.connection import Connection
from pipeline.entrypoints.cli.stores import auditor_url
from sinks.expiring import ExpiringLeaves

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from sinks.s3 import S3


@asynccontextmanager
async def open_authorities(settings: Settings, objects: S3) -> AsyncIterator[Authorities]:
    """Nothing is read before it is asked for."""
    url, timeout_s = auditor_url(settings), settings.request_timeout_s
    connection = Connection(url, name="authority", timeout_s=timeout_s)
    expiring = ExpiringLeaves(url, timeout_s=timeout_s)
    try:
        yield Authorities(
            AuthorityReader(
                connection,
                expiring,
                objects,
                archive_bucket=settings.s3_archive_bucket,
                vault_bucket=settings.s3_vault_bucket,
            )
        )
    finally:
        await expiring.close()
        await connection.close()
