"""Commands that move events: worker, import, generate, dead-letter, resume, demo."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.options import Families, Output, Yes
from pipeline.entrypoints.cli.output import OutputFormat, say, show_json, show_rows, suggest

if TYPE_CHECKING:
    from pipeline.entrypoints.cli.dead_letters import Selection

letters_app = typer.Typer(no_args_is_help=True, help="Records that could not be accepted.")

IdsFile = Annotated[
    Path | None,
    typer.Option(
        "--ids-file",
        dir_okay=False,
        help="Append `event id<TAB>topic:partition:offset` per record; `compare` reads it.",
    ),
]
Reasons = Annotated[
    list[str] | None, typer.Option("--reason", "-r", help="Only this reason; may be repeated.")
]
Identities = Annotated[
    list[str] | None,
    typer.Option("--id", "-i", help="Only topic:partition:offset; may be repeated."),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(worker)
    app.command(name="import")(import_)
    app.command()(generate)
    app.add_typer(letters_app, name="dead-letter")
    app.command()(resume)
    app.command()(demo)


def worker(
    *,
    drain: Annotated[
        bool, typer.Option("--drain", help="Exit 0 once every store is at the end.")
    ] = False,
) -> None:
    """Run the pipeline until stopped: SIGTERM or Ctrl-C end it in order.

    Logs are JSON on stderr; /metrics, /healthz and /readyz listen on AUDIT_HTTP_HOST and _PORT.
    """
    from pipeline.entrypoints.worker import run_worker
    from pipeline.settings import load_settings

    settings = load_settings(drain=True) if drain else load_settings()
    raise typer.Exit(run_worker(settings))


def import_(
    source: Annotated[str, typer.Argument(help="cloudtrail, okta or github.")],
    files: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, help="JSON, JSON Lines, either gzipped."),
    ],
    *,
    tenant: Annotated[
        str, typer.Option("--tenant", help="Instead of the account or organisation in the record.")
    ] = "",
    create_tenants: Annotated[
        bool, typer.Option("--create-tenants", help="Let in the tenants that the files name.")
    ] = False,
    show_unmapped: Annotated[
        bool, typer.Option("--show-unmapped", help="List each record that was not mapped.")
    ] = False,
    ids_file: IdsFile = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Publish a vendor's audit records as events. Importing twice stores each once.

    Needs AUDIT_IMPORT_KEY_FILE: only an importing principal may send events of the past.
    """
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.entrypoints.cli.importing import import_files, summary_rows, unmapped_rows
    from pipeline.settings import load_settings

    summary = import_files(
        load_settings(),
        source,
        files,
        tenant=tenant,
        create_tenants=create_tenants,
        ids_file=ids_file,
    )
    if output is OutputFormat.JSON:
        show_json({**summary.as_dict(), "not_published": unmapped_rows(summary)})
    else:
        show_rows(summary_rows(summary), ["what", "records"], output)
    if show_unmapped and output is OutputFormat.TABLE:
        columns = ["file", "record", "reason", "detail"]
        show_rows(unmapped_rows(summary), columns, output, empty="every record was mapped")
    elif summary.unmapped:
        suggest("the same with --show-unmapped lists what was not mapped", output)
    if summary.withheld:
        raise ProblemFound(
            f"{summary.mapped - summary.published} events name unknown tenants and were not"
            " published; give --create-tenants, or run: audit-trail tenants add"
        )
    suggest("audit-trail status", output)


def generate(
    *,
    count: Annotated[int, typer.Option(min=1, help="Events in all.")] = 10_000,
    rate: Annotated[float, typer.Option(min=0, help="Events a second; 0: as fast as can be.")] = 0,
    tenants: Annotated[int, typer.Option(min=1, help="How many tenants: tenant-1, …")] = 3,
    seed: Annotated[
        int, typer.Option(help="The same seed and --start-at give the same events.")
    ] = 1,
    start_at: Annotated[
        datetime | None,
        typer.Option(
            "--start-at", help="When the day of the events begins, UTC. Default: a day ago."
        ),
    ] = None,
    family: Families = None,
    create_tenants: Annotated[
        bool, typer.Option("--create-tenants", help="Let in those of them that are unknown.")
    ] = False,
    ids_file: IdsFile = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Publish events that look real: for trying out, and for load."""
    from pipeline.entrypoints.cli.generating import Load, generate_load
    from pipeline.settings import load_settings

    load = Load(
        count=count,
        rate=rate,
        tenants=tenants,
        seed=seed,
        start_at=start_at,
        families=tuple(family or ()),
        create_tenants=create_tenants,
        ids_file=ids_file,
    )
    row = generate_load(load_settings(), load)
    show_rows([row], list(row), output)
    suggest("audit-trail status", output)


@letters_app.command("list")
def letters_list(
    *,
    reason: Reasons = None,
    limit: Annotated[int, typer.Option(min=0, help="Newest so many; 0: all.")] = 100,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List the letters: why, from where, when, how large. Nothing is decrypted."""
    from pipeline.entrypoints.cli.dead_letters import letter_rows, read_letters, select
    from pipeline.settings import load_settings

    selection = _selection(reason, None, everything=reason is None)
    letters = select(read_letters(load_settings()), selection)
    shown = letters[-limit:] if limit else letters
    columns = ["id", "reason", "detail", "time", "size_bytes"]
    show_rows(letter_rows(shown), columns, output, empty="no dead letters")
    if len(shown) < len(letters):
        say(f"{len(letters) - len(shown)} older ones are not shown; --limit 0 shows all")
    if shown:
        suggest("audit-trail dead-letter show ID, or replay --reason REASON", output)


@letters_app.command("show")
def letters_show(
    identity: Annotated[str, typer.Argument(metavar="ID", help="topic:partition:offset")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", dir_okay=False, help="Write the bytes there instead.")
    ] = None,
) -> None:
    """Write the original bytes of one letter to stdout, and what is known of it to stderr.

    Needs AUDIT_KEY_FILE. Bytes of a record are shown on a terminal only as a hex dump.
    """
    from pipeline.entrypoints.cli.dead_letters import show_letter
    from pipeline.settings import load_settings

    show_letter(load_settings(), identity, out)


@letters_app.command("replay")
def letters_replay(
    *,
    reason: Reasons = None,
    identity: Identities = None,
    everything: Annotated[bool, typer.Option("--all", help="Every letter.")] = False,
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Publish original records again, after their cause was mended. Without --yes: say which.

    An event that the trail has by now is a duplicate and changes nothing; a record that is still
    bad becomes a new letter, with a new identity.
    """
    from pipeline.entrypoints.cli.dead_letters import replay
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.settings import load_settings

    selection = _selection(reason, identity, everything=everything)
    rows = replay(load_settings(), selection, really=yes)
    show_rows(rows, ["id", "reason", "outcome"], output, empty="no such dead letter")
    if any(row["outcome"] == "its key is gone" for row in rows):
        raise ProblemFound("letters whose key is gone (erased) cannot be replayed")
    if rows and not yes:
        suggest("the same with --yes", output)


def _selection(
    reasons: list[str] | None, identities: list[str] | None, *, everything: bool
) -> Selection:
    from pipeline.codec.dead_letter_format import LetterId
    from pipeline.domain.errors import ConfigurationError, Reason
    from pipeline.entrypoints.cli.dead_letters import Selection

    unknown = set(reasons or ()) - {reason.value for reason in Reason}
    if unknown:
        raise ConfigurationError(
            f"no such reason: {', '.join(sorted(unknown))};"
            f" there are {', '.join(reason.value for reason in Reason)}"
        )
    if not (reasons or identities or everything):
        raise ConfigurationError("say which letters: --reason, --id or --all")
    try:
        wanted = frozenset(LetterId.parse(identity) for identity in identities or ())
    except ValueError as error:
        raise ConfigurationError(f"--id: {error}") from None
    return Selection(reasons=frozenset(reasons or ()), identities=wanted)


def resume(
    topic: Annotated[str, typer.Argument(help="A raw topic.")],
    partition: Annotated[int, typer.Argument(min=0)],
) -> None:
    """Lift the pause of a partition; the worker notices within seconds."""
    from pipeline.entrypoints.cli.pauses import resume_partition
    from pipeline.settings import load_settings

    say(resume_partition(load_settings(), topic, partition))


def demo(
    samples: Annotated[
        Path, typer.Option("--samples", exists=True, file_okay=False, help="Vendor records.")
    ] = Path("samples"),
    *,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Import the samples, run the worker until drained, and show that every store agrees.

    Exit 0 only if the sets of event ids in all three stores equal what was published less the
    dead letters, and at least 90 % of the mapped records are stored.
    """
    from pipeline.entrypoints.cli.demo import run_demo
    from pipeline.settings import load_settings

    run_demo(load_settings(), samples, output)
