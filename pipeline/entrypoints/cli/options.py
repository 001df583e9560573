"""Options that several commands share, spelled once."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.entrypoints.cli.output import OutputFormat

Output = Annotated[
    OutputFormat, typer.Option("--output", "-o", help="How data is written to stdout.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it; without, say what would be done.")]
TimeoutS = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds for one answer of a server.")
]
Families = Annotated[
    list[str] | None,
    typer.Option("--family", "-f", help="Only this family; may be given again. Default: all."),
]
