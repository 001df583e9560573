"""Checkpoints: the name of the logs was chosen, the keys open, the signer's role fits, and it keeps up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pipeline.entrypoints.cli.checks import Finding
from pipeline.entrypoints.cli.database import connected
from pipeline.entrypoints.cli.doctor_database import SELECT_ROLE, held_privileges
from pipeline.settings import UNCHOSEN_ORIGIN

if TYPE_CHECKING:
    from pipeline.settings import Settings

# The longest interval, an archive object's age, and as much again.
UNCOVERED_WARN_S: Final = 180.0
SIGNER: Final = "run: audit-trail signer run"

NEEDED: Final = (
    ("log_heads", ("SELECT",)),
    ("follower_position", ("SELECT",)),
    ("checkpoints", ("SELECT", "INSERT")),
)
FORBIDDEN: Final = (
    ("audit_logs", ("SELECT", "INSERT", "UPDATE", "DELETE")),
    ("audit_blobs", ("SELECT", "INSERT", "UPDATE", "DELETE")),
    ("audit_user", ("SELECT",)),
    ("leaves", ("INSERT", "UPDATE", "DELETE")),
    ("log_heads", ("INSERT", "UPDATE", "DELETE")),
    ("checkpoints", ("UPDATE", "DELETE", "TRUNCATE")),
)

# Since when the first leaf that no checkpoint covers has been in the ledger.
SELECT_UNCOVERED: Final = """
    SELECT head.name, head.size, coalesce(newest.size, 0) AS signed,
           coalesce(extract(epoch FROM now() - event.stored_at), 0)::float8 AS uncovered_s
    FROM log_heads AS head
    LEFT JOIN LATERAL (
        SELECT size FROM checkpoints WHERE log_id = head.log_id ORDER BY size DESC LIMIT 1
    ) AS newest ON true
    LEFT JOIN leaves AS leaf
        ON leaf.log_id = head.log_id AND leaf.leaf_index = coalesce(newest.size, 0)
    LEFT JOIN audit_logs AS event
        ON event.log_id = leaf.log_id AND event.leaf_index = leaf.leaf_index
        AND event.occurred_at = leaf.occurred_at
    WHERE head.size > 0
    ORDER BY uncovered_s DESC
"""


def origin(settings: Settings) -> Sequence[Finding]:
    """The logs have a name of their own."""
    name = "log origin"
    if settings.log_origin == UNCHOSEN_ORIGIN:
        advice = (
            "choose it once, before the first checkpoint: AUDIT_LOG_ORIGIN=audit.example.com/trail"
        )
        return [Finding(name, "warn", f"{UNCHOSEN_ORIGIN}: nobody chose one", advice)]
    return [Finding(name, "ok", settings.log_origin)]


def signing_keys(settings: Settings) -> Sequence[Finding]:
    """Where this host signs: the file is closed to others, and every key that signs opens."""
    from pipeline.keys.provider import load_seed_provider
    from pipeline.keys.signing_keys import active_keys, open_signer, read_keys

    name = "signing keys"
    if settings.signing_key_file is None:
        return [Finding(name, "ok", "not set: this host signs nothing")]
    if not settings.signing_key_file.exists():
        detail = f"{settings.signing_key_file} is not there"
        return [Finding(name, "warn", detail, "run: audit-trail signing-key create")]
    keys = read_keys(settings.signing_key_file)
    signing = active_keys(keys)
    if not signing:
        return [Finding(name, "fail", "no key signs", "run: audit-trail signing-key create")]
    provider = load_seed_provider(settings)
    for key in signing:
        open_signer(provider, key)
    detail = f"{len(signing)} of {len(keys)} sign and open, for the owner only"
    return [Finding(name, "ok", detail)]


def role(settings: Settings) -> Sequence[Finding]:
    """The signer's role may do its task and no more."""
    name = "signer privileges"
    url = settings.signer_database_url
    if not url.get_secret_value():
        return [Finding(name, "ok", "not set: this host signs nothing, or signs as the worker")]
    with connected(settings, url) as connection:
        found: dict[str, Any] = connection.execute(SELECT_ROLE).fetchone() or {}
        lacking = held_privileges(connection, NEEDED, wanted=False)
        too_much = held_privileges(connection, FORBIDDEN, wanted=True)
    findings = []
    if lacking:
        advice = "run: audit-trail migrate"
        findings.append(Finding(name, "fail", f"lacks {', '.join(lacking)}", advice))
    if too_much:
        advice = "AUDIT_SIGNER_DATABASE_URL must name audit_signer"
        findings.append(
            Finding(name, "warn", f"{found['rolname']} has {', '.join(too_much)}", advice)
        )
    return findings or [Finding(name, "ok", f"{found['rolname']} has what it needs, no more")]


def checkpoints(settings: Settings) -> Sequence[Finding]:
    """Every log that has leaves has a checkpoint over them, or gets one soon."""
    name = "checkpoints"
    with connected(settings) as connection:
        rows = connection.execute(SELECT_UNCOVERED).fetchall()
    if not rows:
        return [Finding(name, "ok", "no log has a leaf yet")]
    if not any(row["signed"] for row in rows):
        return [Finding(name, "warn", "no log was ever signed", SIGNER)]
    late = [row for row in rows if row["uncovered_s"] > UNCOVERED_WARN_S]
    if late:
        first = late[0]
        detail = (
            f"{len(late)} of {len(rows)} logs have leaves that none covers: {first['name']} for"
            f" {first['uncovered_s']:.0f} s"
        )
        advice = "does a signer run, and what does its /readyz say of refused logs?"
        return [Finding(name, "warn", detail, advice)]
    return [Finding(name, "ok", f"{len(rows)} logs, none behind for {UNCOVERED_WARN_S:.0f} s")]
