"""The commands of the stack.

Results go to standard output, everything else to standard error; the exit status is 0
when the command did what it says, 1 when it could not, 2 when it was called wrongly.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from audit_stack import lifecycle
from audit_stack.errors import StackError
from audit_stack.fetch import fetch as fetch_programs
from audit_stack.fetch import programs_for
from audit_stack.progress import say
from audit_stack.servers.all import SERVERS, choose, find
from audit_stack.settings import cache_directory, read_settings
from audit_stack.stack import layout_of
from audit_stack.status import ServerStatus, stack_status

app = typer.Typer(
    help=(
        "Runs the real servers of the audit trail on this machine, without Docker: "
        f"{', '.join(server.title for server in SERVERS.values())}. "
        "Settings come from AUDIT_STACK_* variables; see infra/local/README.md."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Output(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to write the result.")]
OnlyOption = Annotated[
    str,
    typer.Option(
        help=f"Comma-separated servers, with what they need; all of them: {','.join(SERVERS)}."
    ),
]
NameArgument = Annotated[str, typer.Argument(help=f"One of {', '.join(SERVERS)}.")]


@app.command()
def fetch(only: OnlyOption = "", output: OutputOption = Output.TABLE) -> None:
    """Download every program into the cache; does nothing when all are there."""
    cache = cache_directory()
    programs = programs_for(choose(_names(only)), read_settings())
    folders = fetch_programs(programs, cache)
    rows: list[dict[str, object]] = [
        {"program": program.name, "version": program.version, "path": str(folders[program.name])}
        for program in programs
    ]
    _write(rows, output)


@app.command()
def up(only: OnlyOption = "", output: OutputOption = Output.TABLE) -> None:
    """Fetch and start the servers side by side; they are ready when the command returns."""
    settings = read_settings()
    lifecycle.up(settings, _names(only))
    _write_status(stack_status(settings), output)
    say(f"settings for the application: {layout_of(settings).env_file}")


@app.command()
def down() -> None:
    """Stop all servers; data, keys and passwords stay for the next up."""
    lifecycle.down(read_settings())


@app.command()
def clean() -> None:
    """Stop all servers and delete the stack's folder with data, keys and logs."""
    lifecycle.clean(read_settings())


@app.command()
def status(output: OutputOption = Output.TABLE) -> None:
    """Show what each server is doing."""
    _write_status(stack_status(read_settings()), output)


@app.command()
def start(name: NameArgument) -> None:
    """Start one server that was stopped or killed; it is ready when the command returns."""
    lifecycle.start(read_settings(), name)


@app.command()
def stop(name: NameArgument) -> None:
    """Stop one server in good order; it stays down until start."""
    lifecycle.stop(read_settings(), name)


@app.command()
def kill(name: NameArgument) -> None:
    """End one server with SIGKILL, as a crash would; it stays down until start."""
    lifecycle.kill(read_settings(), name)


@app.command()
def pause(name: NameArgument) -> None:
    """Let one server stand still with its connections open (SIGSTOP)."""
    lifecycle.pause(read_settings(), name)


@app.command()
def resume(name: NameArgument) -> None:
    """Let a paused server go on (SIGCONT)."""
    lifecycle.resume(read_settings(), name)


@app.command()
def env(
    *,
    path: Annotated[bool, typer.Option("--path", help="Print where the file lies.")] = False,
) -> None:
    """Print the application's settings as KEY=VALUE lines; they hold passwords."""
    file = layout_of(read_settings()).env_file
    if not file.exists():
        message = f"there is no {file}: run up first"
        raise StackError(message)
    sys.stdout.write(f"{file}\n" if path else file.read_text(encoding="utf-8"))


@app.command()
def logs(
    name: NameArgument,
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many, at most.")] = 100,
    path: Annotated[bool, typer.Option("--path", help="Print where the file lies.")] = False,
) -> None:
    """Print the end of a server's log."""
    file = layout_of(read_settings()).log(find(name).name)
    if not file.exists():
        message = f"there is no {file}: {name} never ran"
        raise StackError(message)
    if path:
        sys.stdout.write(f"{file}\n")
        return
    text = file.read_text(encoding="utf-8", errors="replace")
    sys.stdout.write("".join(text.splitlines(keepends=True)[-lines:]))


def main() -> None:
    """Run the command line."""
    _exit_plainly(app)


def _exit_plainly(command: Callable[[], None]) -> None:
    try:
        command()
    except StackError as error:
        say(f"error: {error}")
        sys.exit(1)


def _names(only: str) -> list[str]:
    return [name.strip() for name in only.split(",") if name.strip()]


def _write_status(servers: list[ServerStatus], output: Output) -> None:
    _write([asdict(server) for server in servers], output)


def _write(rows: list[dict[str, object]], output: Output) -> None:
    if output is Output.JSON:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for column in rows[0] if rows else ():
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*(str(value) if value else "-" for value in row.values()))
    # A pipe has no width: let long paths stay on their line.
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)
