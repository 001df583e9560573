"""PostgreSQL: version, clock, schema, months, and exactly the privileges that a writer needs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pipeline.db.connection import NOT_DURABLE
from pipeline.entrypoints.cli.checks import Finding
from pipeline.entrypoints.cli.database import connected

if TYPE_CHECKING:
    from pipeline.settings import Settings

VERSION_MIN: Final = 150_000
# A lag shown in seconds is wrong by the skew; at a minute it says nothing any more.
SKEW_WARN_S: Final = 1.0
SKEW_FAIL_S: Final = 60.0
MIGRATE: Final = "run: audit-trail migrate"

# What DESIGN §3 gives the writer; what is not named it must not have.
NEEDED: Final = (
    ("audit_logs", ("SELECT", "INSERT")),
    ("audit_blobs", ("SELECT", "INSERT")),
    ("leaves", ("SELECT", "INSERT")),
    ("intake", ("SELECT", "INSERT")),
    ("log_heads", ("SELECT", "INSERT", "UPDATE")),
    ("follower_position", ("SELECT", "INSERT", "UPDATE")),
    ("tenants", ("SELECT", "INSERT")),
    ("dead_letter_key", ("SELECT", "INSERT")),
    ("schema_versions", ("SELECT", "INSERT")),
    ("partition_pause", ("SELECT", "INSERT")),
    ("checkpoints", ("SELECT",)),
)
NEEDED_FUNCTIONS: Final = (
    "ensure_month",
    "ensure_months",
    "subject_keys",
    "subject_keys_by_ref",
    "mark_escrowed",
    "newest_escrow",
    "restore_subject_keys",
)
FORBIDDEN: Final = (
    ("audit_logs", ("UPDATE", "DELETE", "TRUNCATE")),
    ("audit_blobs", ("UPDATE", "DELETE", "TRUNCATE")),
    ("leaves", ("UPDATE", "DELETE", "TRUNCATE")),
    ("intake", ("UPDATE", "DELETE", "TRUNCATE")),
    ("audit_user", ("INSERT", "UPDATE", "DELETE", "TRUNCATE")),
    ("checkpoints", ("INSERT", "UPDATE", "DELETE", "TRUNCATE")),
)

SELECT_SERVER: Final = """
    SELECT current_setting('server_version_num')::int AS version,
           current_setting('server_version') AS version_text,
           current_setting('synchronous_commit') AS synchronous_commit,
           current_setting('fsync') AS fsync,
           extract(epoch FROM clock_timestamp())::float8 AS clock
"""
SELECT_ROLE: Final = """
    SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user
"""
SELECT_PRIVILEGE: Final = """
    SELECT wanted.name AS table_name, wanted.privilege,
           to_regclass(wanted.name) IS NOT NULL
           AND has_table_privilege(to_regclass(wanted.name), wanted.privilege) AS has
    FROM unnest(%(tables)s::text[], %(privileges)s::text[]) AS wanted (name, privilege)
"""
SELECT_NOT_CALLABLE: Final = """
    SELECT wanted.name FROM unnest(%(names)s::text[]) AS wanted (name)
    WHERE NOT EXISTS (
        SELECT FROM pg_proc
        WHERE proname = wanted.name AND has_function_privilege(pg_proc.oid, 'EXECUTE')
    )
"""
# A month is there if a partition of its name is; both partitioned tables must have it.
SELECT_MONTHS: Final = """
    SELECT parent.relname || '_' || to_char(month, 'YYYY_MM') AS name
    FROM generate_series(date_trunc('month', now() AT TIME ZONE 'UTC'),
                         date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month',
                         interval '1 month') AS month,
         pg_class AS parent
    WHERE parent.oid IN (to_regclass('audit_logs'), to_regclass('audit_blobs'))
      AND NOT EXISTS (
          SELECT FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
          WHERE inhparent = parent.oid
            AND pg_get_expr(child.relpartbound, child.oid)
                LIKE '%%FROM (''' || to_char(month, 'YYYY-MM-DD') || '%%'
      )
"""


def server(settings: Settings) -> Sequence[Finding]:
    """It answers, is new enough, keeps what it commits, and has our time."""
    with connected(settings) as connection:
        before = time.time()
        found: dict[str, Any] = connection.execute(SELECT_SERVER).fetchone() or {}
        after = time.time()
    return [
        _version(found),
        clock_finding("postgres", found["clock"], before, after),
        *durability(found["synchronous_commit"], found["fsync"]),
    ]


def durability(synchronous_commit: str, fsync: str) -> list[Finding]:
    """Whether what is committed is kept, as the worker asks it when it starts."""
    name = "postgres durability"
    if synchronous_commit in NOT_DURABLE:
        detail = f"synchronous_commit is {synchronous_commit}: what the ledger acknowledges could be lost"
        return [Finding(name, "fail", detail, "set it to on: no worker starts like this")]
    if fsync == "off":
        advice = "for development only: a crash of the machine loses what was committed"
        return [Finding(name, "warn", "fsync is off", advice)]
    return []


def clock_finding(name: str, clock: float, before: float, after: float) -> Finding:
    """How far a server's clock is from ours; the way there and back is in its favour."""
    skew_s = max(before - clock, clock - after, 0.0)
    status = "ok" if skew_s < SKEW_WARN_S else "warn" if skew_s < SKEW_FAIL_S else "fail"
    advice = "" if status == "ok" else "synchronise the clocks (NTP) of this machine and the server"
    return Finding(f"{name} clock", status, f"{skew_s:.3f} s from ours", advice)  # type: ignore[arg-type]


def schema(settings: Settings) -> Sequence[Finding]:
    """The newest migration that this release knows is the one installed."""
    from pipeline.db.migrate import installed_revision, newest_revision

    newest = newest_revision()
    installed = installed_revision(settings.database_url.get_secret_value())
    if installed is None:
        return [Finding("postgres schema", "fail", "never migrated", MIGRATE)]
    if installed != newest:
        detail = f"revision {installed}, this release needs {newest}"
        return [Finding("postgres schema", "fail", detail, MIGRATE)]
    return [Finding("postgres schema", "ok", f"revision {installed}")]


def privileges(settings: Settings) -> Sequence[Finding]:
    """The worker's role has what it needs and nothing that could change the trail."""
    with connected(settings) as connection:
        role: dict[str, Any] = connection.execute(SELECT_ROLE).fetchone() or {}
        lacking = held_privileges(connection, NEEDED, wanted=False)
        missing = connection.execute(SELECT_NOT_CALLABLE, {"names": list(NEEDED_FUNCTIONS)})
        lacking += [f"EXECUTE on {row['name']}" for row in missing.fetchall()]
        too_much = held_privileges(connection, FORBIDDEN, wanted=True)
    name = "postgres privileges"
    findings = []
    if role["rolsuper"]:
        advice = "AUDIT_DATABASE_URL must name audit_writer"
        return [Finding(name, "fail", f"{role['rolname']} is a superuser", advice)]
    if not role["rolbypassrls"]:
        detail = f"{role['rolname']} lacks BYPASSRLS, which COPY needs here"
        findings.append(Finding(name, "fail", detail, MIGRATE))
    if lacking:
        findings.append(Finding(name, "fail", f"lacks {', '.join(lacking)}", MIGRATE))
    if too_much:
        advice = "revoke it: the writer must not be able to change the trail"
        findings.append(Finding(name, "fail", f"has {', '.join(too_much)}", advice))
    return findings or [Finding(name, "ok", f"{role['rolname']} has what it needs, no more")]


def months(settings: Settings) -> Sequence[Finding]:
    """This month and the next have their partitions."""
    with connected(settings) as connection:
        missing = [row["name"] for row in connection.execute(SELECT_MONTHS).fetchall()]
    if missing:
        # The worker makes a month that it needs; ahead of time it costs nobody a wait.
        detail = f"{', '.join(missing)} not made yet"
        return [Finding("postgres months", "warn", detail, MIGRATE)]
    return [Finding("postgres months", "ok", "this month and the next are there")]


def _version(found: dict[str, Any]) -> Finding:
    if found["version"] < VERSION_MIN:
        detail = f"version {found['version_text']}"
        return Finding("postgres", "fail", detail, "PostgreSQL 15 or later is needed")
    return Finding("postgres", "ok", f"version {found['version_text']}")


def held_privileges(
    connection: Any, wishes: Sequence[tuple[str, Sequence[str]]], *, wanted: bool
) -> list[str]:
    """Privileges that are held (``wanted``) or not, of those named."""
    pairs = [(table, privilege) for table, names in wishes for privilege in names]
    rows = connection.execute(
        SELECT_PRIVILEGE,
        {
            "tables": [table for table, _ in pairs],
            "privileges": [privilege for _, privilege in pairs],
        },
    ).fetchall()
    return [f"{row['privilege']} on {row['table_name']}" for row in rows if row["has"] is wanted]
