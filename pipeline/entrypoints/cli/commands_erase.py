"""Commands that erase a person: erase, and erase approve, list, show, resume, certificate, reapply."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from pipeline.entrypoints.cli.options import Output, Yes
from pipeline.entrypoints.cli.output import OutputFormat, say, show_json, show_rows, suggest

if TYPE_CHECKING:
    from pipeline.keys.subjects import Subject
    from pipeline.settings import Settings
    from sinks.erasure_store import Request

erase_app = typer.Typer(help="Erase a person from every store; every proof stays valid.")

RequestId = Annotated[UUID, typer.Argument(metavar="REQUEST", help="As `erase list` shows it.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(erase_app, name="erase")


@erase_app.callback(invoke_without_command=True)
def erase(
    context: typer.Context,
    *,
    tenant: Annotated[str, typer.Option("--tenant", help="Home tenant of the person.")] = "",
    id_type: Annotated[
        str, typer.Option("--id-type", help="Kind of the ids of --subject, such as user_id.")
    ] = "",
    subject: Annotated[
        list[str] | None,
        typer.Option("--subject", help="An id of the person; may be given again."),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="TYPE=ID", help="An id of another kind; may be repeated."),
    ] = None,
    subjects_file: Annotated[
        Path | None,
        typer.Option(
            "--subjects-file",
            help="TYPE=ID a line, - for stdin: keeps ids out of the shell's history.",
        ),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", help="Why, without personal data, such as a ticket's number.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what it would touch in each store, and stop.")
    ] = False,
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Ask for the erasure of one person, all of whose identifiers are given together.

    Another operator approves and thereby runs it (`erase approve`), unless AUDIT_ERASURE_FOUR_EYES is
    false. It cannot be undone. Identifiers that stand in the same events are shown by --dry-run: they may
    be the same person's. Of the identifiers only keyed hashes are kept.
    """
    if context.invoked_subcommand is not None:
        return
    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.cli import erasing
    from pipeline.settings import load_settings

    if not tenant:
        raise ConfigurationError(
            "give --tenant, --id-type and --subject; see: audit-trail erase -h"
        )
    if subject and not id_type:
        raise ConfigurationError("--id-type: which kind of id is --subject?")
    others = [*(also or ()), *(erasing.read_subjects(subjects_file) if subjects_file else ())]
    subjects = erasing.subjects_of(tenant, id_type, subject or [], others)
    settings = load_settings()
    if dry_run or not yes:
        rows = erasing.dry_run(settings, subjects)
        show_rows(rows, ["store", "what", "count"], output)
        if not dry_run:
            suggest("the same with --yes and --reason asks for the erasure", output)
        return
    _ask(settings, subjects, reason, output)


def _ask(settings: Settings, subjects: list[Subject], reason: str, output: OutputFormat) -> None:
    from pipeline.entrypoints.cli import erasing

    request = erasing.request_erasure(settings, subjects, reason)
    if request.four_eyes:
        _show(request, output)
        suggest(f"another operator runs: audit-trail erase approve {request.request_id}", output)
        return
    erasing.approve(settings, request.request_id)
    _run(settings, request.request_id, output)


@erase_app.command("approve")
def erase_approve(
    request: RequestId,
    *,
    no_run: Annotated[
        bool, typer.Option("--no-run", help="Approve only; `erase resume` runs it.")
    ] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Approve a request that another operator asked for, and carry it out. It cannot be undone."""
    from pipeline.entrypoints.cli import erasing
    from pipeline.settings import load_settings

    settings = load_settings()
    approved = erasing.approve(settings, request)
    if no_run:
        _show(approved, output)
        suggest(f"audit-trail erase resume {request}", output)
        return
    _run(settings, request, output)


@erase_app.command("resume")
def erase_resume(request: RequestId, *, output: Output = OutputFormat.TABLE) -> None:
    """Go on with a request where it stands: after a crash, an outage, or when a retention has ended."""
    from pipeline.entrypoints.cli import erasing
    from pipeline.settings import load_settings

    settings = load_settings()
    erasing.find(settings, request)
    _run(settings, request, output)


@erase_app.command("withdraw")
def erase_withdraw(request: RequestId) -> None:
    """Take back a request that has not begun."""
    from pipeline.entrypoints.cli import erasing
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.settings import load_settings

    settings = load_settings()
    if not erasing.withdraw(settings, request):
        raise ProblemFound(f"request {request} is {erasing.find(settings, request).state}")
    say(f"request {request} is withdrawn")


@erase_app.command("list")
def erase_list(*, output: Output = OutputFormat.TABLE) -> None:
    """List requests, the oldest first."""
    from pipeline.entrypoints.cli import erasing
    from pipeline.settings import load_settings

    rows = [erasing.request_row(request) for request in erasing.every(load_settings())]
    columns = ["request", "state", "tenant", "requested_by", "approved_by", "inaccessible_since"]
    show_rows(rows, [*columns, "pending"], output, empty="no requests")


@erase_app.command("show")
def erase_show(request: RequestId, *, output: Output = OutputFormat.TABLE) -> None:
    """Show one request: who asked and approved, each step, and what it waits for."""
    from pipeline.entrypoints.cli import erasing
    from pipeline.settings import load_settings

    _show(erasing.find(load_settings(), request), output)


@erase_app.command("certificate")
def erase_certificate(
    request: RequestId,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", dir_okay=False, help="Write it there instead.")
    ] = None,
) -> None:
    """Write the signed certificate (JSON) to stdout. It holds no identifier of the person."""
    from pipeline.entrypoints.cli import erasing
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.settings import load_settings

    found = erasing.find(load_settings(), request)
    if found.certificate is None:
        raise ProblemFound(
            f"request {request} has no certificate yet; run: audit-trail erase resume"
        )
    if out is not None:
        out.write_text(found.certificate + "\n", encoding="ascii")
    else:
        typer.echo(found.certificate)


@erase_app.command("reapply")
def erase_reapply(*, output: Output = OutputFormat.TABLE) -> None:
    """After a restore of the database: carry out again what it lost. Workers must be stopped.

    Believes a command of audit.redactions only under the trail's own leaf about it.
    """
    from pipeline.entrypoints.cli import erasing
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.settings import load_settings

    outcomes = erasing.reapply(load_settings())
    rows = [{"request": str(one.request_id), "outcome": one.outcome} for one in outcomes]
    show_rows(rows, ["request", "outcome"], output, empty="no command")
    if any(one.outcome == "no leaf" for one in outcomes):
        raise ProblemFound(
            "commands without a leaf that allows them were not carried out: somebody else wrote them, or"
            " the archive is not the one that they were written for"
        )
    if any(one.outcome == "applied" for one in outcomes):
        suggest("start a worker, then for each that was applied: audit-trail erase resume", output)


def _run(settings: Settings, request_id: UUID, output: OutputFormat) -> None:
    from pipeline.compliance.erasure_parts import Pending
    from pipeline.entrypoints.cli import erasing
    from pipeline.entrypoints.cli.failures import ProblemFound

    try:
        request = erasing.run(settings, request_id)
    except Pending as why:
        raise ProblemFound(
            f"pending: {why}; then run: audit-trail erase resume {request_id}"
        ) from None
    _show(request, output)
    suggest(f"audit-trail erase certificate {request_id}", output)
    if request.completed_at is None:
        suggest(
            f"audit-trail erase resume {request_id}: takes replaced documents off the disks; again after"
            " gone_by, for the last certificate",
            output,
        )


def _show(request: Request, output: OutputFormat) -> None:
    from pipeline.entrypoints.cli import erasing

    row = erasing.request_row(request)
    steps = erasing.step_rows(request)
    if output is OutputFormat.JSON:
        show_json({**row, "reason": request.reason, "steps": steps})
        return
    facts = [
        {"what": name, "value": value} for name, value in row.items() if value not in (None, "")
    ]
    show_rows(facts, ["what", "value"], output)
    show_rows(steps, ["step", "done_at", "counts"], output)
