"""What tests of erasure do: ask, approve, and wait until every store has what was published."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import psycopg

from pipeline.settings import Settings
from tests.chaos.processes import Worker, cli, wait_until
from tests.erasure_support import TENANT, Person


def ask(person: Person, **env: str) -> str:
    words = ["erase", "--tenant", TENANT, "--id-type", "user_id", "--subject", person.id]
    asked = cli(*words, "--reason", "GDPR-17", "--yes", "-o", "json", AUDIT_OPERATOR="one", **env)
    return str(json.loads(asked)["request"])


def approve(request: str, **env: str) -> dict[str, Any]:
    found = cli("erase", "approve", request, "-o", "json", AUDIT_OPERATOR="two", **env)
    return dict(json.loads(found))


def stored(settings: Settings, ids: list[str]) -> int:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        row = connection.execute(
            "SELECT count(*) FROM leaves WHERE event_id = ANY (%s::uuid[])", [ids]
        ).fetchone()
    return int(row[0]) if row else 0


def caught_up(settings: Settings) -> bool:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        row = connection.execute(
            "SELECT count(*) FROM log_heads, unnest(ARRAY['index', 'archive']) AS follower"
            " LEFT JOIN LATERAL (SELECT next_leaf FROM follower_position AS p"
            "   WHERE p.follower = follower.follower AND p.log_id = log_heads.log_id) AS at ON true"
            " WHERE size > coalesce(next_leaf, 0)"
        ).fetchone()
    return row is not None and row[0] == 0


def everything_stored(settings: Settings, ids: list[str]) -> None:
    wait_until(lambda: stored(settings, ids) == len(ids), 60, "events in the ledger")
    wait_until(lambda: caught_up(settings), 60, "events in the stores")


def written(workers: Sequence[Worker]) -> list[bytes]:
    """What processes wrote: their logs, and their metrics."""
    return [one.log_file.read_bytes() for one in workers] + [
        "\n".join(one.metrics()).encode() for one in workers
    ]
