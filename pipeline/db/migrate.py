"""Migrations: bring a database to the schema of this release.

Alembic runs the releases' SQL in order, each in one transaction; whoever runs it twice, or twice at
once, changes nothing. The files of ``schema/`` are the same schema for reading and for psql alone.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from pipeline.db.connection import translated
from pipeline.domain.errors import Unavailable

MONTHS_AHEAD = 3
# One migration at a time in a database; the number is "audit" in ASCII.
_LOCK_ID = 0x6175646974


def migrate(admin_url: str, *, months_ahead: int = MONTHS_AHEAD) -> str:
    """Apply what is missing, make the months ahead, and return the revision that holds now.

    ``admin_url`` names a role that may create roles, one of them with BYPASSRLS.

    Raises:
        Unavailable: The server does not answer; nothing, or whole releases, were applied.
        ConfigurationError: The role may not do this.
    """
    try:
        driver_connection = psycopg.connect(admin_url)
    except psycopg.OperationalError as error:
        raise Unavailable("postgres", str(error).strip().splitlines()[-1]) from None
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: driver_connection, poolclass=NullPool
    )
    try:
        with driver_connection, engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:id)"), {"id": _LOCK_ID})
            # The lock belongs to the session: it outlives this commit.
            connection.commit()
            _upgrade(connection)
            connection.execute(
                text(
                    "GRANT SELECT ON alembic_version TO audit_writer, audit_reader, audit_redactor,"
                    " audit_signer, audit_auditor"
                )
            )
            connection.execute(text("SELECT ensure_months(:ahead)"), {"ahead": months_ahead})
            connection.commit()
            return MigrationContext.configure(connection).get_current_revision() or ""
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise translated(error.orig) from None
        raise
    except psycopg.Error as error:
        raise translated(error) from None


def newest_revision() -> str:
    """The revision that this release needs."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def installed_revision(url: str) -> str | None:
    """The revision of a database, read as any role of the trail; None: never migrated.

    Raises:
        Unavailable: The server does not answer.
        ConfigurationError: The role may not read it.
    """
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    except psycopg.Error as error:
        raise translated(error) from None
    return str(row[0]) if row else None


def schema_folder() -> Path:
    """Where the SQL is: beside this module in a wheel, at the top in a source tree."""
    shipped = Path(str(files("pipeline.db") / "schema"))
    return shipped if shipped.is_dir() else Path(__file__).parents[2] / "schema"


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(schema_folder() / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
