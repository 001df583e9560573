"""Check the event schemas of this repository, and files of events against them.

  validate_event_schema.py schemas          lint, and compatibility with every released version
  validate_event_schema.py release          note the schemas as they are now as released versions
  validate_event_schema.py events FILE...   JSON, JSON lines or Avro; what is wrong, with path and rule

Exit status: 0 nothing is wrong, 1 something is, 2 the call or a file is no good.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from audit_sdk.codec import validate

import avro_schemas
from avro_schemas import released
from pipeline.contracts.event_files import read_events
from pipeline.contracts.lint import lint
from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.options import Output
from pipeline.entrypoints.cli.output import OutputFormat, say, show_rows

ROOT = Path(__file__).resolve().parents[1]
RELEASED = ROOT / "avro_schemas" / "released_versions"

app = typer.Typer(no_args_is_help=True, help=__doc__, add_completion=False)


@app.command()
def schemas(*, output: Output = OutputFormat.TABLE) -> None:
    """Lint every family's schema and prove it compatible with every version that was released."""
    findings = [
        finding
        for family in avro_schemas.families()
        for finding in lint(family, avro_schemas.load(family), released.versions(family))
    ]
    rows = [
        {
            "family": finding.family,
            "path": finding.path,
            "rule": finding.rule,
            "detail": finding.detail,
        }
        for finding in findings
    ]
    show_rows(rows, ["family", "path", "rule", "detail"], output, empty="every schema is in order")
    if findings:
        raise typer.Exit(1)


@app.command()
def release() -> None:
    """Write each schema that differs from its newest released version as the next one."""
    for family in avro_schemas.families():
        known = released.texts(family)
        text = avro_schemas.canonical_text(family)
        if known and known[-1] == text:
            continue
        if findings := lint(family, avro_schemas.load(family), released.versions(family)):
            say("; ".join(map(str, findings)))
            raise typer.Exit(1)
        file = RELEASED / f"{family}.{len(known) + 1}.avsc"
        file.write_text(f"{text}\n", encoding="utf-8")
        say(f"written: {file.relative_to(ROOT)}")


@app.command()
def events(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False)],
    *,
    family: Annotated[str, typer.Option(help="Of events that do not say theirs.")] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Check every event of the files against its family's contract."""
    rows, checked = [], 0
    for file in files:
        for found in read_events(file, family):
            checked += 1
            rows += [
                {
                    "file": str(file),
                    "place": found.place,
                    "family": found.family,
                    "path": problem.path,
                    "rule": problem.rule,
                    "detail": problem.detail,
                }
                for problem in validate(found.family, found.event)
            ]
    columns = ["file", "place", "family", "path", "rule", "detail"]
    show_rows(rows, columns, output, empty=f"{checked} events, nothing wrong")
    if rows:
        raise typer.Exit(1)


def main() -> int:
    """The exit status."""
    try:
        app()
    except ConfigurationError as error:
        say(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
