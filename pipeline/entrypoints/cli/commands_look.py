"""Commands that only look: status, compare, settings, metrics."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.entrypoints.cli.options import Output
from pipeline.entrypoints.cli.output import (
    OutputFormat,
    Row,
    progress,
    show_json,
    show_rows,
    suggest,
)


class SettingsFormat(StrEnum):
    """How ``settings`` writes."""

    TABLE = "table"
    JSON = "json"
    ENV = "env"


class MetricsFormat(StrEnum):
    """How ``metrics`` writes."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(status)
    app.command()(compare)
    app.command()(settings)
    app.command()(metrics)


def status(*, output: Output = OutputFormat.TABLE) -> None:
    """Show how far every log is: in Kafka, in the ledger, in the index, in the archive."""
    from pipeline.entrypoints.cli.status import COLUMNS, log_rows
    from pipeline.settings import load_settings

    rows = log_rows(load_settings())
    show_rows(rows, COLUMNS, output, empty="no log yet; start one: audit-trail worker")
    if any(row["paused"] for row in rows):
        suggest("audit-trail dead-letter list, then audit-trail resume TOPIC PARTITION", output)


def compare(
    *,
    ids_file: Annotated[
        Path | None,
        typer.Option("--ids-file", exists=True, dir_okay=False, help="As `import` wrote it."),
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Compare the sets of event ids in ledger, index and archive; exit 1 if they differ.

    With --ids-file: also with what was published, less the dead letters.
    """
    from pipeline.entrypoints.cli.compare import compare_stores
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.settings import load_settings

    with progress("comparing ids", None) as done:
        comparison = compare_stores(load_settings(), ids_file, on_ids=done.advance)
    if output is OutputFormat.JSON:
        show_json(comparison.as_dict())
    else:
        columns = ["store", "events", "twice", "missing", "beyond", "state"]
        show_rows(comparison.rows(), columns, output)
        differences = comparison.difference_rows()
        if differences:
            show_rows(differences, ["store", "difference", "event_id"], output)
    if not comparison.equal:
        raise ProblemFound("the stores differ")


def settings(
    *,
    output: Annotated[
        SettingsFormat, typer.Option("--output", "-o", help="env: a file for AUDIT_ENV_FILE.")
    ] = SettingsFormat.TABLE,
) -> None:
    """List every setting: meaning, default, and whether it is set here. Secrets stay hidden."""
    from pipeline.entrypoints.cli.settings_page import env_example, set_variables, setting_entries

    if output is SettingsFormat.ENV:
        sys.stdout.write(env_example())
        return
    is_set = set_variables()
    rows: list[Row] = [
        {
            "variable": entry.variable,
            "default": "(secret)" if entry.is_secret else entry.default,
            "set": entry.variable in is_set,
            "meaning": entry.meaning,
        }
        for entry in setting_entries()
    ]
    show_rows(rows, ["variable", "default", "set", "meaning"], OutputFormat(output.value))


def metrics(
    *,
    output: Annotated[
        MetricsFormat, typer.Option("--output", "-o", help="markdown: the page of the docs.")
    ] = MetricsFormat.TABLE,
) -> None:
    """List every metric that worker, relay and signer serve, with its meaning."""
    from pipeline.entrypoints.cli.metrics_page import catalogue, catalogue_markdown

    if output is MetricsFormat.MARKDOWN:
        sys.stdout.write(catalogue_markdown())
        return
    rows = [
        {
            "name": entry.name,
            "kind": entry.kind,
            "labels": ", ".join(entry.labels),
            "meaning": entry.meaning,
        }
        for entry in catalogue()
    ]
    show_rows(rows, ["name", "kind", "labels", "meaning"], OutputFormat(output.value))
