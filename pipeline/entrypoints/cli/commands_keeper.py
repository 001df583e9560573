"""``audit-trail keeper``: the process that applies policies, retention and holds on a schedule."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.entrypoints.cli.options import Output
from pipeline.entrypoints.cli.output import OutputFormat, show_rows

keeper_app = typer.Typer(
    no_args_is_help=True, help="Applies policies, retention and holds on a schedule."
)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(keeper_app, name="keeper")


@keeper_app.command("run")
def keeper_run(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="One round; exit 1 if a step failed.")
    ] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Every AUDIT_KEEPER_INTERVAL_S: finish what was begun, apply holds, policies and retention.

    A process of its own, as audit_redactor: whoever ingests must not be able to remove. Policies cut and
    months go only under a leaf of the trail, so a worker must run.
    """
    import asyncio

    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.entrypoints.cli.keeping import open_tools
    from pipeline.entrypoints.keeper import RoundOutcome, keep_once, run_keeper
    from pipeline.settings import load_settings

    settings = load_settings()
    if not once:
        raise typer.Exit(run_keeper(settings))

    async def run() -> RoundOutcome:
        async with open_tools(settings) as tools:
            return await keep_once(tools)

    outcome = asyncio.run(run())
    row = {
        "redacted_events": outcome.redacted_events,
        "expired": outcome.expired,
        "freed_bytes": sum(outcome.freed_bytes.values()),
        "holds_applied": outcome.holds_applied,
        "held": outcome.held,
        "failures": len(outcome.failures),
    }
    show_rows([row], list(row), output)
    if outcome.failures:
        raise ProblemFound("; ".join(outcome.failures))
