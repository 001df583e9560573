"""One PostgreSQL connection that comes back after an outage.

Guarantees that no call waits for ever, that a failed call leaves no transaction behind, and that
callers see this project's errors: whatever a driver's message may quote stays inside.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from pipeline.domain.errors import AuditTrailError, ConfigurationError, Unavailable

PostgresConnection = psycopg.AsyncConnection[TupleRow]

# The transaction lost against another one: roll back, and the same again.
CONFLICTS: tuple[type[psycopg.Error], ...] = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.LockNotAvailable,
)
# Values of synchronous_commit under which an acknowledged COMMIT may be lost.
NOT_DURABLE = ("off", "local")
# OperationalError covers lost connections, shutdown, and a server without room or memory;
# a server that lost its primary role refuses writes with 25006, which the driver files elsewhere.
_OUTAGES = (psycopg.OperationalError, errors.ReadOnlySqlTransaction)
_MISCONFIGURED = (
    errors.InsufficientPrivilege,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.UndefinedTable,
)


class Connection:
    """A connection that is made on first use and again after it was lost; one call at a time.

    ``timeout_s`` bounds each statement on the server; a server that does not answer at all is cut
    off after twice that.
    """

    def __init__(self, url: str, *, name: str, timeout_s: float = 10.0) -> None:
        self._url = url
        self._name = name
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()
        self._connection: PostgresConnection | None = None

    @asynccontextmanager
    async def session(self, *passing: type[psycopg.Error]) -> AsyncIterator[PostgresConnection]:
        """The connection, in autocommit mode, for one call; left without a transaction.

        Errors of the driver named in ``passing`` reach the caller as they are.

        Raises:
            Unavailable: The server is away, shutting down, full, or takes no writes.
            ConfigurationError: A table, function or privilege is missing.
        """
        async with self._lock:
            connection = await self._connected()
            loop = asyncio.get_running_loop()
            cut = loop.call_later(2 * self._timeout_s, _cut_off, connection)
            left_clean = False
            try:
                yield connection
                left_clean = connection.info.transaction_status == TransactionStatus.IDLE
            except passing:
                left_clean = await _rolled_back(connection)
                raise
            except psycopg.Error as error:
                left_clean = await _rolled_back(connection)
                raise translated(error) from None
            except AuditTrailError:
                left_clean = await _rolled_back(connection)
                raise
            finally:
                cut.cancel()
                if not left_clean:
                    await self._drop()

    async def all(
        self, statement: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        """Every row of one query, in binary form. Raises as ``session``."""
        async with self.session() as session:
            cursor = session.cursor(binary=True)
            await cursor.execute(statement, values)
            return await cursor.fetchall()

    async def close(self) -> None:
        """Close; a later call connects again."""
        async with self._lock:
            await self._drop()

    async def _connected(self) -> PostgresConnection:
        if self._connection is None or self._connection.closed:
            self._connection = await self._connect()
        return self._connection

    async def _connect(self) -> PostgresConnection:
        timeout_ms = int(self._timeout_s * 1000)
        options = [
            str(conninfo_to_dict(self._url).get("options") or ""),
            f"-c statement_timeout={timeout_ms}",
            # A head is locked by whoever writes it: half the time, then roll back and retry.
            f"-c lock_timeout={timeout_ms // 2}",
            # A worker that was stopped inside a transaction must not hold its heads for ever.
            f"-c idle_in_transaction_session_timeout={timeout_ms}",
        ]
        try:
            return await psycopg.AsyncConnection.connect(
                self._url,
                autocommit=True,
                application_name=f"audit-trail {self._name}",
                connect_timeout=max(int(self._timeout_s), 2),
                tcp_user_timeout=2 * timeout_ms,
                options=" ".join(options).strip(),
            )
        except psycopg.OperationalError as error:
            # No statement was sent: the message names the server and the role, no event.
            detail = str(error).strip().splitlines()
            raise Unavailable("postgres", detail[-1] if detail else "") from None

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def translated(error: psycopg.Error) -> Exception:
    """Turn an error of the driver into one of this project, without what the server quotes of a row."""
    facts = f"{type(error).__name__}, SQLSTATE {error.sqlstate or 'none'}"
    if isinstance(error, _OUTAGES) or (
        isinstance(error, psycopg.InterfaceError) and error.sqlstate is None
    ):
        return Unavailable("postgres", facts)
    if isinstance(error, _MISCONFIGURED):
        return ConfigurationError(f"the database is not set up: {facts}; run: audit-trail migrate")
    named = f", constraint {error.diag.constraint_name}" if error.diag.constraint_name else ""
    return RuntimeError(f"PostgreSQL refused a statement: {facts}{named}")


async def _rolled_back(connection: PostgresConnection) -> bool:
    """Whether the connection is usable again."""
    if connection.closed:
        return False
    with suppress(psycopg.Error):
        await connection.rollback()
    return not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE


def _cut_off(connection: PostgresConnection) -> None:
    """End a call that nobody answers: its wait on the socket then fails at once.

    Cancelling the task would not do: the driver then asks the same silent server to cancel.
    """
    if not connection.closed:
        with suppress(OSError):
            twin = socket.socket(fileno=os.dup(connection.fileno()))
            with twin:
                twin.shutdown(socket.SHUT_RDWR)
