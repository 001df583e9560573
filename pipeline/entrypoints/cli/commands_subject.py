"""``audit-trail subject``: what is held on a person (GDPR Art. 15)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.output import progress, say

if TYPE_CHECKING:
    from pipeline.entrypoints.cli.keeping import Tools
    from pipeline.keys.subjects import Subject
    from pipeline.settings import Settings


class ReportFormat(StrEnum):
    """How a report is written."""

    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"


subject_app = typer.Typer(no_args_is_help=True, help="What the trail holds on a person.")


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(subject_app, name="subject")


@subject_app.command("report")
def subject_report(
    *,
    tenant: Annotated[str, typer.Option("--tenant", help="Home tenant of the person.")],
    id_type: Annotated[str, typer.Option("--id-type", help="Kind of id, such as user_id.")],
    subject: Annotated[str, typer.Option("--subject", help="The id.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", dir_okay=False, help="A new file, for its owner only; default: stdout."
        ),
    ] = None,
    form: Annotated[ReportFormat, typer.Option("--format")] = ReportFormat.MARKDOWN,
    reason: Annotated[str, typer.Option("--reason", help="Who asked, and why.")] = "Art. 15 GDPR",
) -> None:
    """Write everything held on a person: their events with their values, and what each field means.

    Values of others in the same events are theirs and left out. The trail itself says that the report
    was made, as an event of this person; a worker must run.
    """
    from pipeline.entrypoints.cli.keeping import with_tools
    from pipeline.keys.subjects import Subject
    from pipeline.settings import load_settings

    settings, person = load_settings(), Subject(tenant, id_type, subject)

    async def report(tools: Tools) -> int:
        with _opened(out) as file:
            return await _write(settings, tools, person, form, file, reason)

    events = with_tools(settings, report)
    say(f"{events} events" + (f" in {out}" if out else ""))


async def _write(
    settings: Settings,
    tools: Tools,
    person: Subject,
    form: ReportFormat,
    file: IO[str],
    reason: str,
) -> int:
    from pipeline.compliance.report_pages import page_of
    from pipeline.compliance.subject_report import SubjectReport
    from pipeline.entrypoints.cli.keeping import require_tenant
    from sinks.subject_events import SubjectEvents

    await require_tenant(tools, person.tenant)
    # Before anything is opened: nobody sees a person's events without an event.
    await tools.say_in_trail(
        "access",
        "subject.report",
        tenant=person.tenant,
        data_subjects=({"tenant": person.tenant, "id_type": person.id_type, "id": person.id},),
        reason=reason,
    )
    url = settings.database_url.get_secret_value()
    subjects = SubjectEvents(url, timeout_s=settings.request_timeout_s)
    try:
        source = SubjectReport(subjects, tools.keeping.candidates, tools.keeping.keys)
        facts, refs = await source.facts(
            person,
            subject_hash=tools.subject_hash(person),
            raw_key_hash=tools.provider.mac(f"{person.tenant}/{person.id}".encode()),
            made_at=datetime.now(UTC),
            kept=_kept(settings, tools, person.tenant),
        )
        page, count = page_of(form), 0
        file.writelines(page.head(facts))
        with progress("events", None) as done:
            async for event in source.events(refs):
                file.writelines(page.event(event))
                count += 1
                done.advance()
        file.writelines(page.foot(count))
        return count
    finally:
        await subjects.close()


def _kept(settings: Settings, tools: Tools, tenant: str) -> list[tuple[str, str]]:
    days = tools.tenants.get(tenant, settings.retention_days)
    return [
        ("ledger (PostgreSQL), values encrypted under the person's key", f"{days} days"),
        ("search index (Elasticsearch), values in clear for cleared analysts", f"{days} days"),
        ("archive (S3), without values", f"{days} days at least, locked"),
        ("vault (S3), values encrypted under the person's key", f"{days} days"),
        ("raw topics (Kafka), as the service sent it", "7 days"),
        ("dead letters (Kafka), refused records, encrypted", "30 days"),
    ]


@contextlib.contextmanager
def _opened(out: Path | None) -> Iterator[IO[str]]:
    """Stdout, or a new file that only its owner may read."""
    from pipeline.domain.errors import ConfigurationError

    if out is None:
        yield sys.stdout
        return
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"--out {out}: {os.strerror(error.errno or 0)}") from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        yield file
