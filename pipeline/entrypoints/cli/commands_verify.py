"""Commands that prove the trail, and bring a store back to it: verify, repair."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.options import Output
from pipeline.entrypoints.cli.output import OutputFormat, say, show_json, show_rows, suggest

if TYPE_CHECKING:
    from pipeline.compliance.repair_plan import RepairPlan

Log = Annotated[str, typer.Option("--log", help="One log, as `status` names it. Default: all.")]
Begins = Annotated[
    datetime | None,
    typer.Option(
        "--from", help="Events that happened at this time (UTC) or later; roots are of all."
    ),
]
Ends = Annotated[datetime | None, typer.Option("--to", help="Events that happened before it.")]
Stores = Annotated[
    list[str] | None,
    typer.Option("--store", help="ledger, archive or index; may be given again. Default: all."),
]
Keys = Annotated[
    list[str] | None,
    typer.Option("--key", help="A trusted verifier key. Default: AUDIT_VERIFIER_KEYS_FILE."),
]
Documents = Annotated[
    bool,
    typer.Option(
        "--documents/--no-documents",
        help="Compare documents of the index whole, or only their ids and hashes: twice as fast.",
    ),
]
Signed = Annotated[
    bool, typer.Option("--checkpoints/--no-checkpoints", help="Check what was signed.")
]
Topics = Annotated[
    bool,
    typer.Option("--topics/--no-topics", help="Look holes and dead letters up in Kafka."),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume", dir_okay=False, help="Keep in this file how far it is, and go on from there."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(verify)
    app.command()(repair)


def verify(
    *,
    log: Log = "",
    begins: Begins = None,
    ends: Ends = None,
    store: Stores = None,
    checkpoints: Signed = True,
    documents: Documents = True,
    topics: Topics = True,
    key: Keys = None,
    resume: Resume = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Prove that nothing was added, changed, removed or reordered; exit 1 if anything was.

    Every leaf is computed anew from ledger and archive, every root is compared with head, objects and
    signed checkpoints, the index with the documents that the ledger gives, and `intake` with topics and
    dead letters. What is missing counts as erased, redacted or expired only under a leaf of the trail that
    names the request and commits to what it affects, and is counted by request. Runs beside the worker, reads only (AUDIT_AUDITOR_DATABASE_URL), and names what it
    finds. Each log is verified up to its size at the start.
    """
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.entrypoints.cli.verifying import (
        LISTED_MAX,
        STORES,
        Wanted,
        as_dict,
        log_rows,
        verify_trail,
    )
    from pipeline.settings import load_settings

    wanted = Wanted(
        log=log,
        begins=begins,
        ends=ends,
        stores=tuple(store or STORES),
        checkpoints=checkpoints,
        documents=documents,
        topics=topics,
        keys=tuple(key or ()),
        state_file=resume,
    )
    found = verify_trail(load_settings(), wanted)
    if output is OutputFormat.JSON:
        show_json(as_dict(found))
    else:
        rows = log_rows(found)
        show_rows(rows, list(rows[0]) if rows else [], output, empty="no log yet")
        _show_authority(as_dict(found))
        _show_findings(as_dict(found), LISTED_MAX)
    if found.stubs:
        say(f"{found.stubs} documents are stubs, which the index took instead of the event's own")
    if found.findings.total:
        suggest("docs/runbooks/verify-found.md says what each finding means", output)
        raise ProblemFound(f"{found.findings.total} findings")


def _show_authority(found: dict[str, list[dict[str, object]]]) -> None:
    """What is missing by authority: erased, redacted or expired, under which request."""
    if found["authority"]:
        columns = ["authority", "request_id", "part", "count"]
        show_rows(found["authority"], columns, OutputFormat.TABLE)  # type: ignore[arg-type]


def _show_findings(found: dict[str, list[dict[str, object]]], listed_max: int) -> None:
    counts, listed, hours = found["counts"], found["listed"], found["hours"]
    if counts:
        show_rows(counts, ["kind", "store", "log", "findings"], OutputFormat.TABLE)  # type: ignore[arg-type]
        columns = ["kind", "store", "log", "leaf", "event_id", "place", "what"]
        show_rows(listed[:listed_max], columns, OutputFormat.TABLE)  # type: ignore[arg-type]
        if len(listed) > listed_max:
            say(f"{len(listed) - listed_max} more are listed by --output json")
    if hours:
        show_rows(hours, ["log", "hour", "store", "leaves", "events"], OutputFormat.TABLE)  # type: ignore[arg-type]


def repair(
    *,
    log: Log = "",
    store: Annotated[
        list[str] | None,
        typer.Option("--store", help="index or archive; may be given again. Default: both."),
    ] = None,
    tenant: Annotated[
        str,
        typer.Option("--tenant", help="Under which it is recorded. Default: AUDIT_SYSTEM_TENANT."),
    ] = "",
    key: Keys = None,
    checkpoints: Signed = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Verify, then bring index and archive back to the ledger where there is a hole.

    Documents are made anew from the ledger, foreign ones removed; missing archive objects and wrong
    objects of personal data are written again. The ledger is never changed, nor a leaf repaired whose
    event is in doubt, nor a locked object replaced. What was done becomes events of `audit.raw.system`.
    Exit 1 if something cannot be repaired.
    """
    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.cli.repairing import carry_out, check_tenant, plan_repair, record
    from pipeline.entrypoints.cli.verifying import Wanted
    from pipeline.settings import load_settings

    settings = load_settings()
    named = tenant or settings.system_tenant
    if not dry_run:
        check_tenant(settings, named)
    wanted = Wanted(
        log=log,
        stores=tuple(store or ("index", "archive")),
        checkpoints=checkpoints,
        topics=False,
        keys=tuple(key or ()),
    )
    if set(wanted.stores) - {"index", "archive"}:
        raise ConfigurationError("only index and archive follow the ledger and can be repaired")
    found = plan_repair(settings, wanted)
    plan = found.plan
    if dry_run or output is OutputFormat.TABLE:
        show_rows(plan.rows(), ["store", "log", "count", "what"], output, empty="nothing to repair")
    if not dry_run and not plan.empty:
        if not yes and not typer.confirm("Do this?", err=True):
            raise typer.Abort
        rows = record(settings, carry_out(settings, found), named)
        columns = ["store", "log", "leaves", "removed", "root", "event_id"]
        show_rows(rows, columns, output)
        suggest("audit-trail verify", output)
    elif not dry_run and output is OutputFormat.JSON:
        show_rows([], [], output)
    _tell_what_is_left(plan)


def _tell_what_is_left(plan: RepairPlan) -> None:
    from pipeline.entrypoints.cli.failures import ProblemFound

    for name, of_log in sorted(plan.logs.items()):
        if of_log.in_doubt:
            say(f"{name} is left alone in part or whole: {of_log.in_doubt}")
    if plan.full:
        say("there is more than one run remembers: run it again")
    if plan.beyond_repair:
        raise ProblemFound(
            f"{len(plan.beyond_repair)} findings are not of a store that can be repaired;"
            " `audit-trail verify` names them, docs/runbooks/verify-found.md says what to do"
        )
