"""``audit-trail hold``: legal holds, which outrank erasure, redaction and expiry in every store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID, uuid4

import typer

from pipeline.entrypoints.cli.options import Output
from pipeline.entrypoints.cli.output import OutputFormat, Row, say, show_rows, suggest

if TYPE_CHECKING:
    from pipeline.entrypoints.cli.keeping import Tools
    from sinks.holds import LegalHold

hold_app = typer.Typer(
    no_args_is_help=True, help="Legal holds: what may not be erased, redacted or let expire."
)
_COLUMNS = ["hold_id", "state", "scope", "reason", "owner", "ends_at", "placed_by"]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(hold_app, name="hold")


@hold_app.command("add")
def hold_add(
    *,
    tenant: Annotated[str, typer.Option("--tenant", help="Whose events; a person's home tenant.")],
    reason: Annotated[str, typer.Option("--reason", help="Why: a case number, no person's name.")],
    owner: Annotated[str, typer.Option("--owner", help="Who answers for it.")],
    id_type: Annotated[str, typer.Option("--id-type", help="With --subject: kind of id.")] = "",
    subject: Annotated[
        str, typer.Option("--subject", help="Only events that name this person, in any tenant.")
    ] = "",
    log: Annotated[str, typer.Option("--log", help="Only this log: topic/partition/epoch.")] = "",
    event: Annotated[UUID | None, typer.Option("--event", help="Only this event.")] = None,
    occurred_from: Annotated[
        datetime | None, typer.Option("--from", help="Only what happened from then on, UTC.")
    ] = None,
    occurred_until: Annotated[
        datetime | None, typer.Option("--until", help="Only what happened before, UTC.")
    ] = None,
    ends: Annotated[
        datetime | None, typer.Option("--ends", help="Ends by itself then, UTC. Default: never.")
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Place a hold. It is in force as soon as the ledger has it, and stays until it is released.

    Archive objects that hold such events get an S3 legal hold as well. Needs
    AUDIT_DATABASE_REDACTOR_URL; a worker must run, since the trail itself says that a hold was placed.
    """
    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.cli.keeping import require_tenant, utc, with_tools
    from pipeline.keys.subjects import Subject
    from pipeline.settings import load_settings

    if bool(id_type) != bool(subject):
        raise ConfigurationError("a person is --id-type and --subject together")
    person = Subject(tenant, id_type, subject) if subject else None
    settings = load_settings()

    async def place(tools: Tools) -> LegalHold:
        from sinks.holds import LegalHold

        await require_tenant(tools, tenant)
        hold = LegalHold(
            hold_id=uuid4(),
            tenant=tenant,
            subject_hash=tools.subject_hash(person) if person else None,
            log=log or None,
            event_id=event,
            occurred_from=utc(occurred_from),
            occurred_until=utc(occurred_until),
            reason=reason,
            owner=owner,
            placed_by=tools.keeping.operator,
            placed_at=datetime.now(UTC),
            ends_at=utc(ends),
        )
        await tools.keeping.holds.place(hold)
        say(f"hold {hold.hold_id} is in force")
        await tools.hold_copies.put(hold)
        # Held first, said afterwards: a hold does not wait for a worker.
        await _apply(tools)
        await _say(tools, hold, "hold.place")
        return hold

    show_rows([_row(with_tools(settings, place))], _COLUMNS, output)
    suggest("audit-trail hold list", output)


@hold_app.command("list")
def hold_list(
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Those that were released or ended, too.")
    ] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List the holds that stand."""
    from pipeline.entrypoints.cli.keeping import with_tools
    from pipeline.settings import load_settings

    async def ask(tools: Tools) -> list[LegalHold]:
        return await tools.keeping.holds.all()

    now = datetime.now(UTC)
    holds = [h for h in with_tools(load_settings(), ask) if everything or h.stands(now)]
    show_rows([_row(hold) for hold in holds], _COLUMNS, output, empty="nothing is held")


@hold_app.command("release")
def hold_release(
    hold_id: Annotated[
        UUID, typer.Argument(metavar="HOLD", help="Its id, as `hold list` shows it.")
    ],
    *,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Release a hold. Objects that no other hold covers are freed; nothing is removed by this."""
    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.cli.keeping import with_tools
    from pipeline.settings import load_settings

    async def release(tools: Tools) -> LegalHold:
        holds = {hold.hold_id: hold for hold in await tools.keeping.holds.all()}
        if hold_id not in holds:
            raise ConfigurationError(f"there is no hold {hold_id}")
        by = tools.keeping.operator
        if not await tools.keeping.holds.release(hold_id, by):
            say("it was released before; the stores are brought to that")
        released = replace(holds[hold_id], released_by=by, released_at=datetime.now(UTC))
        await tools.hold_copies.put(released)
        await _say(tools, released, "hold.release")
        await _apply(tools)
        return released

    show_rows([_row(with_tools(load_settings(), release))], _COLUMNS, output)


async def _say(tools: Tools, hold: LegalHold, action: str) -> None:
    """The trail's own event."""
    await tools.say_in_trail(
        "hold",
        action,
        tenant=hold.tenant,
        resources=(("legal_hold", str(hold.hold_id)),),
        reason=hold.reason,
    )


async def _apply(tools: Tools) -> None:
    """S3 legal holds as the table says."""
    from pipeline.entrypoints.cli.output import progress

    with progress("archive objects", None) as done:
        logs = await tools.keeping.candidates.logs()
        applied = await tools.archive_holds.apply(logs, on_object=done.advance)
    say(f"archive objects held: {applied.held}, freed: {applied.freed}")


def _row(hold: LegalHold) -> Row:
    state = "stands" if hold.stands(datetime.now(UTC)) else "ended"
    return {
        "hold_id": str(hold.hold_id),
        "state": "released" if hold.released_at else state,
        "scope": hold.scope,
        "reason": hold.reason,
        "owner": hold.owner,
        "placed_by": hold.placed_by,
        "placed_at": hold.placed_at.isoformat(),
        "ends_at": hold.ends_at.isoformat() if hold.ends_at else None,
        "released_by": hold.released_by,
    }
