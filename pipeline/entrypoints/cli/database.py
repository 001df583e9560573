"""PostgreSQL for the command line: short connections, failures put into our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from pipeline.domain.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from pydantic import SecretStr

    from pipeline.settings import Settings

Connection = psycopg.Connection[dict[str, Any]]


@contextmanager
def connected(settings: Settings, url: SecretStr | None = None) -> Iterator[Connection]:
    """One connection as the writer (or as ``url`` says), in one transaction, committed at the end.

    Raises:
        Unavailable: The server does not answer.
        ConfigurationError: It refuses: a role, a privilege, a table that is not there.

    """
    address = (url or settings.database_url).get_secret_value()
    timeout_s = settings.request_timeout_s
    with postgres_errors():
        connection: Connection = psycopg.connect(
            address,
            row_factory=dict_row,
            connect_timeout=max(2, int(timeout_s)),
            application_name="audit-trail-cli",
            options=f"-c statement_timeout={int(timeout_s * 1000)}",
        )
        with connection:
            yield connection


@contextmanager
def postgres_errors() -> Iterator[None]:
    """Turn the driver's exceptions into ours; its messages, which quote values, stay behind.

    Raises:
        Unavailable: See ``connected``.
        ConfigurationError: See ``connected``.

    """
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction) as error:
        raise ConfigurationError(
            "the database has no schema yet; run: audit-trail migrate"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            "the database role lacks a privilege; `audit-trail doctor` says which"
        ) from error
    except psycopg.errors.QueryCanceled as error:
        raise Unavailable("postgres", "no answer in time") from error
    except psycopg.OperationalError as error:
        # Before a session exists there is no event that a message could quote.
        detail = str(error).splitlines()[0] if error.sqlstate is None else error.sqlstate
        if "authentication failed" in detail or "does not exist" in detail:
            raise ConfigurationError(f"postgres refuses: {detail}") from error
        raise Unavailable("postgres", detail) from error
