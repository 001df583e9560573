"""The SQL tests that people run with psql, against a migrated database of a real server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.ledger_support import Database, database, template
from tests.migration.test_schema import postgres_program

__all__ = ["database", "template"]  # fixtures

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[2] / "scripts" / "tests"
FILES = sorted(FOLDER.glob("*.sql"))


def psql(url: str, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [postgres_program("psql", url), "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1",
         "--dbname", url],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_file_passes_and_changes_nothing(database: Database, file: Path) -> None:
    before = database.run("admin", "SELECT count(*) FROM log_heads")

    done = psql(database.urls["admin"], file.read_text(encoding="utf-8"))

    assert done.returncode == 0, done.stderr
    assert database.run("admin", "SELECT count(*) FROM log_heads") == before


@pytest.mark.parametrize(
    ("file", "weakened", "complaint"),
    [
        (
            "test_redaction",
            "GRANT UPDATE ON audit_blobs TO audit_writer",
            "the writer changed a blob",
        ),
        (
            "test_redaction",
            "DROP TRIGGER audit_blobs_refuse_held ON audit_blobs",
            "a held blob was removed",
        ),
        (
            "test_partition_creation",
            (
                "GRANT EXECUTE ON FUNCTION make_month(timestamptz) TO audit_writer;"
                "ALTER FUNCTION make_month(timestamptz) SECURITY DEFINER"
            ),
            "the writer made a month by itself",
        ),
    ],
)
def test_the_files_notice_what_is_weakened(
    database: Database, file: str, weakened: str, complaint: str
) -> None:
    database.run("admin", weakened)

    done = psql(database.urls["admin"], (FOLDER / f"{file}.sql").read_text(encoding="utf-8"))

    assert done.returncode != 0
    assert complaint in done.stderr
