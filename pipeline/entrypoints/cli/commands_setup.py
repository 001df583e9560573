"""Commands that bring the servers into shape: doctor, migrate, tenants, topics, schemas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.options import Families, Output, TimeoutS, Yes
from pipeline.entrypoints.cli.output import OutputFormat, say, show_rows, suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.entrypoints.cli.schemas import Candidate, SchemaState
    from pipeline.entrypoints.cli.topics import TopicState

SchemaFile = Annotated[
    Path | None,
    typer.Option("--file", exists=True, dir_okay=False, help="A candidate (.avsc)."),
]

topics_app = typer.Typer(no_args_is_help=True, help="The topics that the trail needs.")
schemas_app = typer.Typer(no_args_is_help=True, help="Schemas in the registry.")
tenants_app = typer.Typer(no_args_is_help=True, help="Who may have events in the trail.")


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(doctor)
    app.command()(migrate)
    app.command()(mac_key)
    app.command()(open_epoch)
    app.command()(restore)
    app.add_typer(tenants_app, name="tenants")
    app.add_typer(topics_app, name="topics")
    app.add_typer(schemas_app, name="schemas")


def doctor(*, output: Output = OutputFormat.TABLE, timeout: TimeoutS = 10.0) -> None:
    """Check every server, topic, schema, privilege, key and clock; exit 1 if something fails.

    Checks run side by side and each has the timeout to itself.
    """
    from pipeline.entrypoints.cli.checks import run_checks
    from pipeline.entrypoints.cli.doctor import all_checks
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.settings import load_settings

    settings = load_settings(request_timeout_s=timeout)
    findings = run_checks(all_checks(settings), timeout_s=timeout)
    columns = ["check", "status", "detail", "what_to_do"]
    show_rows([finding.row() for finding in findings], columns, output)
    failed = sum(finding.status == "fail" for finding in findings)
    if failed:
        raise ProblemFound(f"{failed} of {len(findings)} checks failed")
    suggest("audit-trail status", output)


def migrate(*, output: Output = OutputFormat.TABLE) -> None:
    """Make tables, index template, buckets, topics and schemas what this release needs.

    Every step may be repeated and says what it did. Needs AUDIT_DATABASE_ADMIN_URL.
    """
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.entrypoints.cli.setup_steps import run_steps
    from pipeline.settings import load_settings

    outcomes = run_steps(load_settings())
    show_rows([outcome.row() for outcome in outcomes], ["step", "status", "detail"], output)
    if any(outcome.status == "fail" for outcome in outcomes):
        raise ProblemFound("a step failed; mend it and run: audit-trail migrate")
    suggest("audit-trail tenants add NAME, then audit-trail doctor", output)


def mac_key(
    path: Annotated[Path, typer.Argument(help="A new file, for AUDIT_KMS_MAC_KEY_FILE.")],
) -> None:
    """With AWS KMS: make the trail's MAC key, wrapped under AUDIT_KMS_KEY_ID. Once, for ever.

    The file opens with KMS only. Keep a copy: without it nobody's key is found again.
    """
    from pipeline.keys.kms import make_mac_key
    from pipeline.settings import load_settings

    make_mac_key(load_settings(), path)
    say(f"written: {path}")
    suggest(f"AUDIT_KMS_MAC_KEY_FILE={path} audit-trail doctor")


def open_epoch(
    topic: Annotated[str, typer.Argument(help="A raw topic that was replaced.")],
    partition: Annotated[int, typer.Argument(min=0)],
    *,
    yes: Yes = False,
) -> None:
    """Begin a new log for a partition whose topic was replaced, or lost records unread.

    The old log stays as it is; events that were only in the lost records are lost to the trail. If
    topic and ledger agree, nothing changes. The worker goes on within seconds.
    """
    from pipeline.entrypoints.cli.repair import open_epoch, topic_identity
    from pipeline.settings import load_settings

    settings = load_settings()
    if not yes:
        _, topic_id = topic_identity(settings, topic)
        say(f"would open a new log of {topic}/{partition} for topic id {topic_id}")
        suggest("the same with --yes")
        return
    head = open_epoch(settings, topic, partition)
    say(f"the log is {head.name}, {head.size} leaves, next offset {head.next_offset}")


def restore(
    *,
    log: Annotated[str, typer.Option("--log", help="Only this log: topic/partition/epoch.")] = "",
    period: Annotated[
        str,
        typer.Option("--period", help="With --into: a month 2026-03, or 2026-03-01..2026-03-15."),
    ] = "",
    into: Annotated[
        str, typer.Option("--into", metavar="SCHEMA", help="A new schema beside the ledger.")
    ] = "",
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """After the database was rolled back or lost: bring keys and leaves back from journal and archive.

    Stop the workers first. What the ledger has stays; each leaf comes back as it was. Legal holds come
    back, and orders to redact or let expire are carried out again.

    With --period and --into: those events beside the ledger, verified, for looking at; the ledger and the
    workers go on. Nobody who was erased comes back. Drop the schema when it is no longer needed.
    """
    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.cli.repair import restore
    from pipeline.settings import load_settings

    if bool(period) != bool(into):
        raise ConfigurationError("--period and --into go together")
    if into:
        from pipeline.entrypoints.cli.restoring import restore_aside

        columns = ["log", "events", "blobs", "withheld"]
        show_rows(restore_aside(load_settings(), log, period, into), columns, output)
        return
    if not yes:
        raise ConfigurationError("stop the workers, then give --yes")
    columns = ["log", "leaves_before", "leaves", "next_offset"]
    show_rows(restore(load_settings(), log), columns, output)
    suggest("audit-trail worker", output)


@tenants_app.command("add")
def tenants_add(
    tenants: Annotated[list[str], typer.Argument(help="Names, as events will have them.")],
    *,
    display_name: Annotated[str, typer.Option("--name", help="For people to read.")] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Let tenants in: each gets a key of its own, wrapped by the key provider."""
    from pipeline.entrypoints.cli.tenants import add_tenants
    from pipeline.settings import load_settings

    rows = [outcome.row() for outcome in add_tenants(load_settings(), tenants, display_name)]
    show_rows(rows, ["tenant", "state"], output)
    suggest("audit-trail import SOURCE FILE, or audit-trail generate", output)


@tenants_app.command("list")
def tenants_list(*, output: Output = OutputFormat.TABLE) -> None:
    """List the tenants."""
    from pipeline.entrypoints.cli.tenants import list_tenants
    from pipeline.settings import load_settings

    rows = list_tenants(load_settings())
    columns = ["tenant", "name", "created_at", "retention_days"]
    show_rows(rows, columns, output, empty="no tenants; run: audit-trail tenants add NAME")


@topics_app.command("check")
def topics_check(*, output: Output = OutputFormat.TABLE) -> None:
    """Compare the topics with what they must be; exit 1 if one differs."""
    from pipeline.entrypoints.cli.kafka import admin_client
    from pipeline.entrypoints.cli.topics import check_topics, topic_specs
    from pipeline.settings import load_settings

    settings = load_settings()
    admin = admin_client(settings)
    states = check_topics(admin, topic_specs(settings), settings.request_timeout_s)
    _show_topics(states, output)


@topics_app.command("create")
def topics_create(
    *,
    fix: Annotated[
        bool, typer.Option("--fix", help="Give existing topics their configuration as well.")
    ] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Create what is missing; report what differs and change that only with --fix."""
    from pipeline.entrypoints.cli.kafka import admin_client
    from pipeline.entrypoints.cli.topics import (
        MORE_REPLICAS,
        create_topics,
        too_few_replicas,
        topic_specs,
    )
    from pipeline.settings import load_settings

    settings = load_settings()
    admin = admin_client(settings)
    states = create_topics(
        admin,
        topic_specs(settings),
        replicas=settings.replication_factor,
        fix=fix,
        timeout_s=settings.request_timeout_s,
    )
    if too_few := too_few_replicas(admin, settings):
        say(f"warning: {too_few}; {MORE_REPLICAS}")
    _show_topics(states, output)


def _show_topics(states: Sequence[TopicState], output: OutputFormat) -> None:
    from dataclasses import asdict

    from pipeline.entrypoints.cli.failures import ProblemFound

    columns = ["name", "partitions", "state", "detail"]
    show_rows([asdict(state) for state in states], columns, output)
    if any(state.state == "missing" for state in states):
        raise ProblemFound("topics are missing; run: audit-trail topics create")
    if any(state.state == "differs" for state in states):
        raise ProblemFound("topics differ; to change their configuration: topics create --fix")


@schemas_app.command("register")
def schemas_register(
    *,
    family: Families = None,
    file: SchemaFile = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Register this release's schemas, and the compatibility rule of each subject.

    With --file: that schema instead, for the one --family. The ledger keeps what is registered.
    """
    from pipeline.entrypoints.cli import schemas
    from pipeline.entrypoints.cli.registry import RegistryClient
    from pipeline.entrypoints.cli.schema_rows import remember_versions
    from pipeline.settings import load_settings

    settings = load_settings()
    with RegistryClient(settings) as registry:
        candidates = _candidates(family, file)
        states = [schemas.register(registry, candidate) for candidate in candidates]
    remember_versions(settings, states, candidates)
    _show_schemas(states, output)


@schemas_app.command("check")
def schemas_check(
    *,
    family: Families = None,
    file: SchemaFile = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Say whether a schema may be registered; exit 1 if not, with the rule that forbids it.

    Without --file: this release's own schemas. With it: that candidate, for the one --family.
    """
    from pipeline.entrypoints.cli import schemas
    from pipeline.entrypoints.cli.registry import RegistryClient
    from pipeline.settings import load_settings

    candidates = _candidates(family, file)
    with RegistryClient(load_settings()) as registry:
        states = [schemas.check(registry, candidate) for candidate in candidates]
    _show_schemas(states, output, file)


def _candidates(family: list[str] | None, file: Path | None) -> list[Candidate]:
    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.cli import schemas

    if file is None:
        return schemas.shipped(family or ())
    if family is None or len(family) != 1:
        raise ConfigurationError("--file needs exactly one --family")
    return [schemas.candidate_from(file, family[0])]


def _show_schemas(
    states: Sequence[SchemaState], output: OutputFormat, file: Path | None = None
) -> None:
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.entrypoints.cli.schemas import state_row

    columns = ["family", "state", "schema_id", "version", "compatibility", "detail"]
    show_rows([state_row(state) for state in states], columns, output)
    if any(state.state == "incompatible" for state in states):
        raise ProblemFound("incompatible schemas are not registered")
    if any(state.state in ("missing", "compatible") for state in states):
        named = f" --file {file} --family {states[0].family}" if file else ""
        say(f"may be registered; run: audit-trail schemas register{named}")
