"""``audit-trail``: the command line's root. Every command imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.entrypoints.cli import (
    commands_erase,
    commands_expire,
    commands_export,
    commands_flow,
    commands_hold,
    commands_keeper,
    commands_look,
    commands_redact,
    commands_relay,
    commands_rules,
    commands_setup,
    commands_sign,
    commands_subject,
    commands_verify,
)
from pipeline.entrypoints.cli.failures import EXIT_CODES_HELP, run

app = typer.Typer(
    name="audit-trail",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES_HELP,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - the callback's signature is Typer's
    if wanted:
        from pipeline.entrypoints.cli.version import product_version

        typer.echo(product_version())
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """An audit trail that can be searched, verified and erased.

    First steps: `audit-trail doctor`, `audit-trail migrate`, `audit-trail demo`.
    Settings come from the environment (AUDIT_*), or from the file that AUDIT_ENV_FILE names;
    `audit-trail settings` lists them. Data goes to stdout, messages to stderr.
    """


commands_setup.add_to(app)
commands_flow.add_to(app)
commands_erase.add_to(app)
commands_look.add_to(app)
commands_relay.add_to(app)
commands_rules.add_to(app)
commands_hold.add_to(app)
commands_redact.add_to(app)
commands_expire.add_to(app)
commands_keeper.add_to(app)
commands_subject.add_to(app)
commands_sign.add_to(app)
commands_verify.add_to(app)
commands_export.add_to(app)


def main() -> None:
    """The entry point of the distribution."""
    run(app)


if __name__ == "__main__":
    main()
