"""A period of the archive beside the ledger: ``audit-trail restore --period … --into …``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline.compliance.side_restore import SideRestore
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import LogName
from pipeline.entrypoints.cli.output import Row, progress, say
from pipeline.entrypoints.cli.stores import archive_reader, call_keys, object_store

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from sinks.subject_store import SubjectStore

_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})")
_DAYS = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})\.\.([0-9]{4}-[0-9]{2}-[0-9]{2})")


def restore_aside(settings: Settings, log: str, period: str, schema: str) -> list[Row]:
    """Load a period of one log or all into a schema; a row per log. May be repeated.

    Raises:
        ConfigurationError: No such period, or the schema is somebody else's.
        ChainBroken: An object is not what was stored: nothing of it was loaded.
        Unavailable: A server does not answer; run it again.

    """
    since, until = period_of(period)
    url = settings.database_admin_url.get_secret_value()
    if not url:
        raise ConfigurationError("AUDIT_DATABASE_ADMIN_URL is not set: the owner makes the schema")
    rows: list[Row] = []

    async def load(store: SubjectStore) -> None:
        async with object_store(settings) as objects:
            reader = archive_reader(settings, objects)
            side = SideRestore(
                url,
                reader,
                store,
                schema,
                late_after_s=settings.late_after_s,
                timeout_s=settings.request_timeout_s,
            )
            try:
                await side.make(period)
                wanted = [LogName.parse(log)] if log else await reader.logs()
                with progress("events", None) as done:
                    for name in wanted:
                        found = await side.load(name, since, until, on_leaves=done.advance)
                        rows.append(
                            {
                                "log": found.log,
                                "events": found.events,
                                "blobs": found.blobs,
                                "withheld": found.withheld,
                            }
                        )
            finally:
                await side.close()

    call_keys(settings, load)
    say(f"in schema {schema}; when it is no longer needed: DROP SCHEMA {schema} CASCADE")
    return rows


def period_of(text: str) -> tuple[datetime, datetime]:
    """A month (``2026-03``) or days (``2026-03-01..2026-03-15``, both included), UTC; the end is not in it.

    Raises:
        ConfigurationError: It is neither.

    """
    try:
        if month := _MONTH.fullmatch(text):
            year, number = int(month[1]), int(month[2])
            following = divmod(year * 12 + number, 12)
            return (
                datetime(year, number, 1, tzinfo=UTC),
                datetime(following[0], following[1] + 1, 1, tzinfo=UTC),
            )
        if days := _DAYS.fullmatch(text):
            since, last = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in days.groups())
            if since <= last:
                return since, last + timedelta(days=1)
    except ValueError:
        pass
    raise ConfigurationError(
        f"--period {text}: not a month such as 2026-03, nor days such as 2026-03-01..2026-03-15"
    )
