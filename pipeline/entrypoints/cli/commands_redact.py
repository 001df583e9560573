"""``audit-trail redact``: cut values from events; by event, by field, by policy."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from pipeline.entrypoints.cli.options import Families, Output
from pipeline.entrypoints.cli.output import OutputFormat, Row, progress, say, show_rows, suggest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pipeline.compliance.redaction import Plan, Redaction
    from pipeline.entrypoints.cli.keeping import Tools

redact_app = typer.Typer(
    no_args_is_help=True, help="Cut values from ledger, vault and index; their commitments stay."
)
_REQUEST_COLUMNS = ["request_id", "state", "tenant", "policy", "leaves", "reason", "requested_by"]
_PLAN_COLUMNS = ["path", "values"]
_HELD_SHOWN = 20

Fields = Annotated[
    list[str] | None,
    typer.Option("--field", help="Path or pattern, such as changes.*; may be repeated."),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--data-class", help="Whose it is: actor, target, subject, unattributed; may be repeated."
    ),
]
Value = Annotated[
    str, typer.Option("--value", help="Only values that hold this: card-number, email, re:REGEX.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; no person's name.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be cut; change nothing.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(redact_app, name="redact")


@redact_app.command("event")
def redact_event(
    event_id: Annotated[UUID, typer.Argument(metavar="EVENT_ID")],
    *,
    reason: Reason,
    field: Fields = None,
    data_class: Classes = None,
    value: Value = "",
    dry_run: DryRun = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Cut values of one event. Only sealed values can be cut: what is clear is hashed as it stands.

    The trail first gets a leaf that names the request and commits to the event; a worker must run.
    """
    from pipeline.compliance.patterns import FieldRule

    rule = FieldRule(tuple(field or ()), tuple(data_class or ()), value)

    async def plan(redaction: Redaction) -> Plan:
        return await redaction.plan_event(event_id, rule)

    _redact(plan, reason, output, dry_run=dry_run)


@redact_app.command("fields")
def redact_fields(
    *,
    tenant: Annotated[list[str], typer.Option("--tenant", help="May be repeated.")],
    reason: Reason,
    field: Fields = None,
    data_class: Classes = None,
    value: Value = "",
    family: Families = None,
    action: Annotated[list[str] | None, typer.Option("--action", help="May be repeated.")] = None,
    occurred_from: Annotated[
        datetime | None, typer.Option("--from", help="What happened from then on, UTC.")
    ] = None,
    occurred_until: Annotated[
        datetime | None, typer.Option("--until", help="What happened before, UTC.")
    ] = None,
    dry_run: DryRun = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Cut values of all events of a tenant that match, 10,000 events at a time.

    Held events are left as they are and listed. Run it again until nothing is left to cut.
    """
    from pipeline.compliance.candidates import Selection
    from pipeline.compliance.patterns import FieldRule
    from pipeline.entrypoints.cli.keeping import utc

    rule = FieldRule(tuple(field or ()), tuple(data_class or ()), value)
    selection = Selection(
        tenants=tuple(tenant),
        families=tuple(family or ()),
        actions=tuple(action or ()),
        occurred_from=utc(occurred_from),
        occurred_until=utc(occurred_until),
    )

    async def plan(redaction: Redaction) -> Plan:
        return await redaction.plan(selection, rule)

    _redact(plan, reason, output, dry_run=dry_run)


@redact_app.command("list")
def redact_list(*, output: Output = OutputFormat.TABLE) -> None:
    """List the redactions: state, how many events, why, by whom."""
    from pipeline.domain.orders import REDACTION
    from pipeline.entrypoints.cli.keeping import request_row, with_tools
    from pipeline.settings import load_settings

    async def ask(tools: Tools) -> list[Row]:
        requests = await tools.keeping.removals.all()
        return [request_row(one) for one in requests if one.kind == REDACTION]

    rows = with_tools(load_settings(), ask)
    show_rows(rows, _REQUEST_COLUMNS, output, empty="no redactions")


@redact_app.command("resume")
def redact_resume(
    request_id: Annotated[UUID, typer.Argument(metavar="REQUEST")],
    *,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Go on with a redaction that a crash, a hold or a store that was away has stopped."""
    from pipeline.compliance.redaction import Redaction
    from pipeline.entrypoints.cli.keeping import request_row, with_tools
    from pipeline.settings import load_settings

    async def resume(tools: Tools) -> Row:
        return request_row(await Redaction(tools.keeping).carry_out(request_id))

    show_rows([with_tools(load_settings(), resume)], _REQUEST_COLUMNS, output)


@redact_app.command("policy")
def policy_apply(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="YAML; see samples/policies.")
    ],
    *,
    dry_run: DryRun = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Store the policies of a file in the ledger, where the keeper applies them; say what they would cut.

    A policy of the same name is replaced. A changed rule looks at every event again.
    """
    from pipeline.compliance.policy_file import read_policies
    from pipeline.compliance.policy_run import PolicyRun
    from pipeline.entrypoints.cli.keeping import with_tools
    from pipeline.settings import load_settings

    policies = read_policies(file)

    async def apply(tools: Tools) -> list[Row]:
        from pipeline.entrypoints.cli.keeping import policy_store

        rows: list[Row] = []
        async with policy_store(tools.settings) as store:
            for policy in policies:
                if not dry_run:
                    await store.set(policy, by=tools.keeping.operator)
                plan = await PolicyRun(tools.keeping, store).preview(policy)
                rows.append(
                    {
                        "policy": policy.name,
                        "state": "not stored" if dry_run else "stored",
                        "events": plan.events,
                        "values": plan.paths.total(),
                        "held": len(plan.held),
                        "more": plan.more,
                    }
                )
        return rows

    columns = ["policy", "state", "events", "values", "held", "more"]
    show_rows(with_tools(load_settings(), apply), columns, output)
    suggest("audit-trail keeper run --once", output)


@redact_app.command("policies")
def policy_list(*, output: Output = OutputFormat.TABLE) -> None:
    """List the stored policies: fields that the keeper cuts once they are old enough."""
    import asyncio

    from pipeline.entrypoints.cli.keeping import policy_store
    from pipeline.settings import load_settings

    async def ask() -> list[Row]:
        async with policy_store(load_settings()) as store:
            return [
                {
                    "name": one.name,
                    "reason": one.reason,
                    "fields": " ".join(one.rule.fields),
                    "value": one.rule.value,
                    "older_than_days": one.older_than_days,
                }
                for one in await store.all()
            ]

    columns = ["name", "fields", "value", "older_than_days", "reason"]
    show_rows(asyncio.run(ask()), columns, output, empty="no policies")


@redact_app.command("drop-policy")
def policy_remove(
    name: Annotated[str, typer.Argument(help="As `redact policies` shows it.")],
    *,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Take a policy away; what it has cut stays cut."""
    import asyncio

    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.cli.keeping import policy_store
    from pipeline.settings import load_settings

    async def remove() -> bool:
        async with policy_store(load_settings()) as store:
            return await store.remove(name)

    if not asyncio.run(remove()):
        raise ConfigurationError(f"there is no policy {name}")
    show_rows([{"policy": name, "state": "gone"}], ["policy", "state"], output)


def _redact(
    make: Callable[[Redaction], Awaitable[Plan]],
    reason: str,
    output: OutputFormat,
    *,
    dry_run: bool,
) -> None:
    """Plan, show, and unless it is a dry run order and carry out."""
    from pipeline.compliance.redaction import Redaction
    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.entrypoints.cli.keeping import request_row, with_tools
    from pipeline.settings import load_settings

    if not reason.strip():
        raise ConfigurationError("--reason is empty")

    async def run(tools: Tools) -> tuple[Plan, list[Row]]:
        with progress("events looked at", None) as looked_at:
            plan = await make(Redaction(tools.keeping, on_events=looked_at.advance))
        if dry_run or not plan.events:
            return plan, []
        redaction = Redaction(tools.keeping)
        rows = []
        for request_id in await redaction.order(plan, reason=reason):
            say(f"request {request_id}; if this stops: audit-trail redact resume {request_id}")
            rows.append(request_row(await redaction.carry_out(request_id)))
        return plan, rows

    plan, rows = with_tools(load_settings(), run)
    for held in plan.held[:_HELD_SHOWN]:
        say(f"held: leaf {held.leaf_index} of {held.log} ({', '.join(held.holds)})")
    if rows:
        show_rows(rows, _REQUEST_COLUMNS, output)
    else:
        found: list[Row] = [
            {"path": path, "values": count} for path, count in sorted(plan.paths.items())
        ]
        show_rows(found, _PLAN_COLUMNS, output, empty="nothing to cut")
    if plan.more:
        say("there is more: run it again")
    if plan.held:
        raise ProblemFound(
            f"{len(plan.held)} events are under legal hold and were left as they are"
        )
