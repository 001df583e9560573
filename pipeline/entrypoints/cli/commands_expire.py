"""``audit-trail retention`` and ``audit-trail expire``: how long events are kept, and letting them go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from pipeline.entrypoints.cli.options import Output, Yes
from pipeline.entrypoints.cli.output import OutputFormat, Row, progress, show_rows, suggest

if TYPE_CHECKING:
    from pipeline.compliance.expiry import Assessed
    from pipeline.entrypoints.cli.keeping import Tools

retention_app = typer.Typer(no_args_is_help=True, help="How long a tenant's events are kept.")
_DUE_COLUMNS = ["month", "what", "days", "events", "ledger_bytes", "state", "detail"]
_REQUEST_COLUMNS = ["request_id", "state", "month", "tenant", "class", "leaves", "ledger_bytes",
                    "index_bytes", "vault_bytes"]  # fmt: skip


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(retention_app, name="retention")
    app.command()(expire)


@retention_app.command("set")
def retention_set(
    *,
    tenant: Annotated[str, typer.Option("--tenant")],
    days: Annotated[int, typer.Option("--days", min=1, help="After both times of an event.")],
    retention_class: Annotated[
        str, typer.Option("--class", help="Only this retention_class; default: all others.")
    ] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Set how long a tenant's events are kept, or those of one class.

    A month stays as long as its longest retention; of a shorter one the personal data goes.
    """
    from pipeline.entrypoints.cli.keeping import require_tenant, with_tools
    from pipeline.settings import load_settings
    from sinks.retention import RetentionPolicy

    async def set_it(tools: Tools) -> None:
        await require_tenant(tools, tenant)
        by = tools.keeping.operator
        await tools.retention.set(RetentionPolicy(tenant, retention_class, days, by))
        await tools.say_in_trail(
            "configuration",
            "retention.set",
            tenant=tenant,
            resources=(("retention_policy", f"{retention_class or 'all'}:{days}"),),
        )

    with_tools(load_settings(), set_it)
    row = {"tenant": tenant, "class": retention_class or None, "days": days}
    show_rows([row], list(row), output)
    suggest("audit-trail expire --dry-run", output)


@retention_app.command("list")
def retention_list(*, output: Output = OutputFormat.TABLE) -> None:
    """List the policies; a tenant without one has its own row's days, or AUDIT_RETENTION_DAYS."""
    from pipeline.entrypoints.cli.keeping import with_tools
    from pipeline.settings import load_settings

    async def ask(tools: Tools) -> list[Row]:
        return [
            {
                "tenant": one.tenant,
                "class": one.class_ or None,
                "days": one.days,
                "set_by": one.set_by,
            }
            for one in await tools.retention.policies()
        ]

    rows = with_tools(load_settings(), ask)
    show_rows(rows, ["tenant", "class", "days", "set_by"], output, empty="no policies")


@retention_app.command("remove")
def retention_remove(
    *,
    tenant: Annotated[str, typer.Option("--tenant")],
    retention_class: Annotated[str, typer.Option("--class")] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Take a policy away; what has expired stays gone."""
    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.cli.keeping import with_tools
    from pipeline.settings import load_settings

    async def remove(tools: Tools) -> bool:
        removed = await tools.retention.remove(tenant, retention_class)
        if removed:
            await tools.say_in_trail(
                "configuration",
                "retention.remove",
                tenant=tenant,
                resources=(("retention_policy", retention_class or "all"),),
            )
        return removed

    if not with_tools(load_settings(), remove):
        raise ConfigurationError("there is no such policy")
    row = {"tenant": tenant, "class": retention_class or None, "state": "gone"}
    show_rows([row], list(row), output)


def expire(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is due and what keeps it; change nothing.")
    ] = False,
    resume: Annotated[
        UUID | None, typer.Option("--resume", metavar="REQUEST", help="Go on with this request.")
    ] = None,
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Drop months that are past retention, and the blobs of what is kept shorter; leaves stay.

    Only what is archived, was read back from there as it was, is past retention by both of its times,
    and is not held. The trail first gets a leaf that commits to what goes; a worker must run.
    """
    from pipeline.compliance.expiry import RETENTION_PASSED
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.entrypoints.cli.keeping import expiring, request_row, with_tools
    from pipeline.settings import load_settings

    async def run(tools: Tools) -> tuple[list[Assessed], list[Row]]:
        with progress("leaves", None) as leaves:
            work = await expiring(tools, on_leaves=leaves.advance)
            if resume is not None:
                return [], [request_row(await work.carry_out(resume))]
            found = await work.assess()
            if dry_run or not yes:
                return found, []
            done = [await work.let_go(one, reason=RETENTION_PASSED) for one in found if _ready(one)]
            return found, [request_row(one) for one in done if one is not None]

    found, rows = with_tools(load_settings(), run)
    if rows:
        columns = [{name: row.get(name) for name in _REQUEST_COLUMNS} | dict(row) for row in rows]
        show_rows(columns, _REQUEST_COLUMNS, output)
    else:
        show_rows([_due_row(one) for one in found], _DUE_COLUMNS, output, empty="nothing is due")
    if any(map(_ready, found)) and not (dry_run or yes):
        suggest("the same with --yes", output)
    kept = [one for one in found if not _ready(one)]
    if kept and not dry_run:
        raise ProblemFound(f"{len(kept)} that are due stay: {kept[0].state} ({kept[0].detail})")


def _ready(one: Assessed) -> bool:
    return one.state == "ready"


def _due_row(one: Assessed) -> Row:
    return {
        "month": f"{one.due.scope.month:%Y-%m}",
        "what": one.due.what,
        "days": one.due.days,
        "events": one.due.events,
        "ledger_bytes": one.size_bytes if one.due.scope.tenant is None else None,
        "state": one.state,
        "detail": one.detail,
    }
