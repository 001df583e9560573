"""PostgreSQL: the ledger's database and, apart from it, the registry's.

Durable as in production: fsync, synchronous_commit and full page writes are on.
"""

import shutil
import subprocess
from pathlib import Path

import psycopg
from psycopg import sql

from audit_stack.errors import NotReady, StackError
from audit_stack.servers.base import PROBE_TIMEOUT_S, Server
from audit_stack.stack import Stack
from audit_stack.supervise import Command

NAME = "postgres"
DATABASE = "audit"
ADMIN_ROLE = "audit_admin"
REGISTRY_DATABASE = "registry"
REGISTRY_ROLE = "registry"

CONFIG = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0777
password_encryption = scram-sha-256
max_connections = 100
shared_buffers = 256MB
# A query over all months of the trail locks every partition and its indexes.
max_locks_per_transaction = 256
# Durable: what was committed survives kill -9 and a power cut.
fsync = on
synchronous_commit = on
full_page_writes = on
# Loads of many rows run into fewer forced checkpoints.
max_wal_size = 4GB
checkpoint_timeout = 15min
wal_compression = {wal_compression}
# One disk for all servers: what is written leaves the page cache steadily. Else hundreds of MB go at
# once every half minute, and every commit waits behind them [measured: 0.6 to 1.2 s].
backend_flush_after = 256kB
random_page_cost = 1.1
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
"""

ACCESS = """\
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""


def url(stack: Stack, role: str, password: str) -> str:
    """Return the address of the ledger's database for one role."""
    return f"postgresql://{role}:{password}@127.0.0.1:{stack.settings.port('postgres')}/{DATABASE}"


def cluster_major(folder: Path) -> int | None:
    """Return the version that wrote the data in ``folder``, None when there are none."""
    try:
        return int((folder / "data" / "PG_VERSION").read_text(encoding="ascii"))
    except FileNotFoundError:
        return None


def _version(stack: Stack) -> str:
    return str(cluster_major(stack.folder(NAME)) or "")


def _prepare(stack: Stack) -> None:
    folder = stack.account.make_folder(stack.folder(NAME))
    cluster = folder / "data"
    if cluster_major(folder) is None:
        _create_cluster(stack, cluster)
    config = CONFIG.format(
        port=stack.settings.port("postgres"),
        sockets=stack.layout.postgres_sockets,
        wal_compression=_wal_compression(stack.postgres_bin),
    )
    stack.account.write_file(cluster / "postgresql.conf", config)
    stack.account.write_file(cluster / "pg_hba.conf", ACCESS)


def _create_cluster(stack: Stack, cluster: Path) -> None:
    """Run initdb beside the final place, so that a half-made cluster is never taken."""
    partial = cluster.with_name("data.partial")
    shutil.rmtree(partial, ignore_errors=True)
    password_file = cluster.with_name("password")
    stack.account.write_file(password_file, stack.credentials.postgres_admin)
    done = subprocess.run(
        [
            str(stack.postgres_bin / "initdb"),
            f"--pgdata={partial}",
            f"--username={ADMIN_ROLE}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
        ],
        cwd=cluster.parent,
        capture_output=True,
        text=True,
        check=False,
        **stack.account.drop_arguments(),
    )
    password_file.unlink()
    if done.returncode != 0:
        message = f"initdb failed:\n{done.stdout}{done.stderr}"
        raise StackError(message)
    partial.rename(cluster)


def _wal_compression(binaries: Path) -> str:
    done = subprocess.run(
        [str(binaries / "pg_config"), "--configure"], capture_output=True, text=True, check=False
    )
    return "lz4" if "--with-lz4" in done.stdout else "pglz"


def _command(stack: Stack) -> Command:
    folder = stack.folder(NAME)
    return Command(
        argv=[str(stack.postgres_bin / "postgres"), "-D", str(folder / "data")],
        directory=folder,
        environment={"LC_ALL": "C.UTF-8"},
        # INT is PostgreSQL's fast shutdown; TERM would wait for clients to leave.
        stop_signal="INT",
    )


def _connect(stack: Stack, database: str = DATABASE) -> psycopg.Connection:
    return psycopg.connect(
        host="127.0.0.1",
        port=stack.settings.port("postgres"),
        dbname=database,
        user=ADMIN_ROLE,
        password=stack.credentials.postgres_admin,
        connect_timeout=int(PROBE_TIMEOUT_S),
        autocommit=True,
    )


def _probe(stack: Stack) -> None:
    try:
        with _connect(stack, "postgres") as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError as error:
        raise NotReady(str(error)) from error


def _provision(stack: Stack) -> None:
    """Create what is missing: the login roles and the two databases."""
    credentials = stack.credentials
    roles = {
        "audit_writer": ("LOGIN BYPASSRLS", credentials.postgres_writer),
        "audit_reader": ("LOGIN", credentials.postgres_reader),
        "audit_redactor": ("LOGIN", credentials.postgres_redactor),
        "audit_signer": ("LOGIN", credentials.postgres_signer),
        "audit_auditor": ("LOGIN BYPASSRLS", credentials.postgres_auditor),
        REGISTRY_ROLE: ("LOGIN", credentials.postgres_registry),
    }
    with _connect(stack, "postgres") as connection:
        known = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
        for role, (attributes, password) in roles.items():
            if role not in known:
                statement = sql.SQL("CREATE ROLE {} {} PASSWORD {}").format(
                    sql.Identifier(role), sql.SQL(attributes), sql.Literal(password)
                )
                connection.execute(statement)
        present = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        for database, owner in ((DATABASE, ADMIN_ROLE), (REGISTRY_DATABASE, REGISTRY_ROLE)):
            if database not in present:
                statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(
                    sql.Identifier(database), sql.Identifier(owner)
                )
                connection.execute(statement)


SERVER = Server(
    name=NAME,
    title="PostgreSQL",
    version=_version,
    ports=("postgres",),
    prepare=_prepare,
    command=_command,
    probe=_probe,
    provision=_provision,
)
