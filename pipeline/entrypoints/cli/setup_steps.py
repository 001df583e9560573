"""``audit-trail migrate``: every step that brings the servers to what this release needs.

Each may be repeated. A step that fails does not hide the others, which have their own servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.domain.errors import AuditTrailError, ConfigurationError
from pipeline.entrypoints.cli.output import Row, say
from pipeline.entrypoints.cli.stores import object_store

if TYPE_CHECKING:
    from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one step did: ``ok`` or ``fail``."""

    step: str
    status: str
    detail: str

    def row(self) -> Row:
        """For output."""
        return {"step": self.step, "status": self.status, "detail": self.detail}


def run_steps(settings: Settings) -> list[StepOutcome]:
    """All steps in order; a failure is an outcome, not an exception."""
    steps: list[tuple[str, Callable[[Settings], str]]] = [
        ("database", migrate_database),
        ("topics", make_topics),
        ("schemas", register_schemas),
        ("index template", put_template),
        ("buckets", make_buckets),
    ]
    outcomes = []
    for name, step in steps:
        say(f"{name} …")
        try:
            outcomes.append(StepOutcome(name, "ok", step(settings)))
        except AuditTrailError as error:
            outcomes.append(StepOutcome(name, "fail", str(error)))
    return outcomes


def migrate_database(settings: Settings) -> str:
    """Tables, functions, roles: to the newest version that this release knows."""
    from pipeline.db.migrate import migrate
    from pipeline.entrypoints.cli.database import postgres_errors

    url = settings.database_admin_url.get_secret_value()
    if not url:
        raise ConfigurationError("AUDIT_DATABASE_ADMIN_URL is not set: the owner makes the tables")
    with postgres_errors():
        migrate(url)
    return "at the newest version"


def make_topics(settings: Settings) -> str:
    """Create what is missing; what differs is left alone and said."""
    from pipeline.entrypoints.cli.kafka import admin_client
    from pipeline.entrypoints.cli.topics import create_topics, too_few_replicas, topic_specs

    admin = admin_client(settings)
    states = create_topics(
        admin,
        topic_specs(settings),
        replicas=settings.replication_factor,
        fix=False,
        timeout_s=settings.request_timeout_s,
    )
    differing = [state.name for state in states if state.state == "differs"]
    if differing:
        raise ConfigurationError(f"differ: {', '.join(differing)}; run: audit-trail topics check")
    created = sum(state.state == "created" for state in states)
    too_few = too_few_replicas(admin, settings)
    said = f"; {too_few} (see: audit-trail doctor)" if too_few else ""
    return f"{created} created, {len(states) - created} there{said}"


def register_schemas(settings: Settings) -> str:
    """This release's schemas, and each subject's compatibility rule."""
    from pipeline.entrypoints.cli import schemas
    from pipeline.entrypoints.cli.registry import RegistryClient
    from pipeline.entrypoints.cli.schema_rows import remember_versions

    candidates = schemas.shipped()
    with RegistryClient(settings) as registry:
        states = [schemas.register(registry, candidate) for candidate in candidates]
    remember_versions(settings, states, candidates)
    refused = [state.family for state in states if state.state != "registered"]
    if refused:
        raise ConfigurationError(
            f"incompatible: {', '.join(refused)}; run: audit-trail schemas check"
        )
    return f"{len(states)} registered"


def put_template(settings: Settings) -> str:
    """The index template: mappings of every month's index."""
    from pipeline.entrypoints.cli.index_template import install_template

    return install_template(settings)


def make_buckets(settings: Settings) -> str:
    """Archive (versions, Object Lock) and vault (neither)."""
    from sinks.buckets import ensure_buckets

    archive, vault = settings.s3_archive_bucket, settings.s3_vault_bucket

    async def ensure() -> None:
        async with object_store(settings) as store:
            await ensure_buckets(store, archive=archive, vault=vault)

    asyncio.run(ensure())
    return f"{archive} (locked) and {vault}"
