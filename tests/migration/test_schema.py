"""The schema's two forms, files for psql and migrations, are one; each file runs alone, twice."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import which
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pipeline.db.migrate import installed_revision, migrate, newest_revision, schema_folder
from pipeline.domain.errors import Unavailable
from tests.ledger_support import Database, empty_database, server_urls

pytestmark = pytest.mark.integration

FILES = sorted(schema_folder().glob("*.sql"))


@pytest.fixture
def bare() -> Iterator[Database]:
    urls = server_urls()
    if not urls:
        pytest.skip("no PostgreSQL: set AUDIT_DATABASE_*_URL or AUDIT_ENV_FILE")
    with empty_database(urls) as database:
        yield database


def run_with_psql(file: Path, url: str) -> None:
    done = subprocess.run(
        [postgres_program("psql", url), "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url],
        stdin=file.open(encoding="utf-8"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def postgres_program(name: str, url: str) -> str:
    """The server's own one, if it is here, else the newest that is installed: it dumps servers of its
    own version and older ones.
    """
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT setting FROM pg_config WHERE name = 'BINDIR'").fetchone()
    beside = Path(row[0] if row else "", name)
    if beside.is_file():
        return str(beside)
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(installed[-1]) if installed else which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def dumped(database: Database) -> list[str]:
    """The schema as pg_dump writes it, without what differs by session."""
    done = subprocess.run(
        [
            postgres_program("pg_dump", database.urls["admin"]),
            "--schema-only",
            "--exclude-table=alembic_version",
            f"--dbname={database.urls['admin']}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "server version mismatch" in done.stderr:
        pytest.skip("pg_dump is older than the server")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return [line for line in lines if not line.startswith(("\\restrict", "\\unrestrict", "--"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_file_runs_alone_and_again(bare: Database, file: Path) -> None:
    run_with_psql(file, bare.urls["admin"])
    first = dumped(bare)

    run_with_psql(file, bare.urls["admin"])

    assert dumped(bare) == first


def test_the_migrations_give_the_schema_of_the_files(bare: Database) -> None:
    for file in FILES:
        run_with_psql(file, bare.urls["admin"])
    bare.run("admin", "SELECT ensure_months(1)")

    with empty_database(server_urls()) as migrated:
        migrate(migrated.urls["admin"], months_ahead=1)

        assert dumped(migrated) == dumped(bare)


def test_migrating_again_and_at_once_changes_nothing(bare: Database) -> None:
    before = installed_revision(bare.urls["admin"])

    with ThreadPoolExecutor() as pool:
        revisions = list(pool.map(migrate, [bare.urls["admin"]] * 3))

    assert before is None
    assert revisions == [newest_revision()] * 3
    assert installed_revision(bare.urls["writer"]) == newest_revision()
    assert installed_revision(bare.urls["reader"]) == newest_revision()


def test_a_server_that_is_not_there_is_an_outage() -> None:
    with pytest.raises(Unavailable):
        migrate("postgresql://nobody@127.0.0.1:1/nowhere")


def test_every_table_column_view_and_function_says_what_it_means(bare: Database) -> None:
    migrate(bare.urls["admin"], months_ahead=0)

    silent = bare.run(
        "admin",
        """
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
            AND relname <> 'alembic_version' AND obj_description(oid, 'pg_class') IS NULL
        UNION ALL
        SELECT relname || '.' || attname FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
            AND attnum > 0 AND NOT attisdropped AND relname <> 'alembic_version'
            AND col_description(attrelid, attnum) IS NULL
        UNION ALL
        SELECT proname FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL
        """,
    )

    assert silent == []


def test_definer_functions_fix_their_search_path(bare: Database) -> None:
    migrate(bare.urls["admin"], months_ahead=0)

    open_paths = bare.run(
        "admin",
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef"
        " AND NOT coalesce(array_to_string(proconfig, ',') LIKE 'search_path=pg_catalog%%', false)",
    )

    assert open_paths == []


def test_months_are_made_by_many_at_once(bare: Database) -> None:
    migrate(bare.urls["admin"], months_ahead=0)

    def make(_caller: int) -> list[object]:
        return bare.run("writer", "SELECT ensure_month('2020-05-31 23:59:59.999999+00')")

    with ThreadPoolExecutor(6) as pool:
        made = [row[0][0] for row in pool.map(make, range(6))]  # type: ignore[index]

    assert sorted(made) == [False] * 5 + [True]
    assert bare.run("admin", "SELECT to_regclass('audit_blobs_2020_05') IS NOT NULL") == [(True,)]


@pytest.mark.parametrize(
    "call",
    [
        "ensure_month('1989-12-31 23:59:59+00')",
        "ensure_month(now() + interval '2 months 1 day')",
        "ensure_month('infinity')",
        "ensure_month(NULL)",
        "ensure_months(25)",
        "ensure_months(-1)",
    ],
)
def test_absurd_months_are_refused(bare: Database, call: str) -> None:
    migrate(bare.urls["admin"], months_ahead=0)

    with pytest.raises(psycopg.DataError):
        bare.run("writer", f"SELECT {call}")


def test_whoever_owns_the_database_and_may_grant_roles_can_migrate(bare: Database) -> None:
    migrate(bare.urls["admin"], months_ahead=0)  # the roles exist: BYPASSRLS takes a superuser
    name, password = f"migrator_{uuid4().hex[:12]}", uuid4().hex
    with empty_database(server_urls()) as managed:
        role, word = sql.Identifier(name), sql.Literal(password)
        with psycopg.connect(managed.urls["admin"], autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(role, word))
            admin.execute(sql.SQL("GRANT audit_owner TO {}").format(role))
            admin.execute(
                sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(managed.name), role)
            )
        try:
            migrate(make_conninfo(managed.urls["admin"], user=name, password=password))

            owners = managed.run(
                "admin",
                "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class"
                " WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'alembic%%'",
            )
        finally:
            with psycopg.connect(managed.urls["admin"], autocommit=True) as admin:
                admin.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(role))
                admin.execute(sql.SQL("DROP OWNED BY {}").format(role))
                admin.execute(sql.SQL("DROP ROLE {}").format(role))

    assert owners == [("audit_owner",)]
