"""``audit-trail rules``: the detections, as files: list, lint, test, evaluate, backtest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.options import Output
from pipeline.entrypoints.cli.output import OutputFormat, Row, progress, say, show_json, show_rows

if TYPE_CHECKING:
    from pipeline.detections.files import Loaded

rules_app = typer.Typer(
    no_args_is_help=True,
    help="Detection rules: list, check, test and evaluate them; no server needed.",
)
Folder = Annotated[
    Path | None,
    typer.Option("--folder", exists=True, file_okay=False, help="Default: the rules shipped."),
]
Overrides = Annotated[
    Path | None,
    typer.Option("--overrides", exists=True, dir_okay=False, help="Bounds by rule and tenant."),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(rules_app, name="rules")


@rules_app.command("list")
def rules_list(
    *, folder: Folder = None, overrides: Overrides = None, output: Output = OutputFormat.TABLE
) -> None:
    """List the rules: level, kind, what they are grouped by, and when they alert."""
    from pipeline.detections.wording import condition_text, duration_text

    rows: list[Row] = [
        {
            "rule": rule.name,
            "level": rule.level,
            "type": rule.kind,
            "group_by": ", ".join(rule.group_by) or "tenant",
            "timespan": duration_text(rule.timespan_us),
            "condition": condition_text(rule),
            "title": rule.title,
        }
        for rule in _load(folder, overrides).rules.rules
    ]
    columns = ["rule", "level", "type", "group_by", "timespan", "condition"]
    show_rows(rows, columns, output, empty="no rule")


@rules_app.command("lint")
def rules_lint(
    *, folder: Folder = None, overrides: Overrides = None, output: Output = OutputFormat.TABLE
) -> None:
    """Check that every file is a rule; exit 1 if one is not, with its line and the reason."""
    from pipeline.entrypoints.cli.failures import ProblemFound

    loaded = _load(folder, overrides)
    rows: list[Row] = [
        {"file": one.file, "line": one.line, "reason": one.reason} for one in loaded.refusals
    ]
    show_rows(
        rows, ["file", "line", "reason"], output, empty=f"{len(loaded.files)} rules, all good"
    )
    if rows:
        raise ProblemFound(f"{len(rows)} files are refused")


@rules_app.command("test")
def rules_test(*, folder: Folder = None, output: Output = OutputFormat.TABLE) -> None:
    """Run the tests that stand in the rules; exit 1 if one fails."""
    from pipeline.detections.trials import run_tests
    from pipeline.entrypoints.cli.failures import ProblemFound

    loaded = _load(folder, None)
    results = [result for file in loaded.files for result in run_tests(file)]
    rows: list[Row] = [
        {
            "rule": one.rule,
            "test": one.test,
            "wanted": one.wanted,
            "alerts": one.found,
            "one_by_one": one.found_one_by_one,
            "state": "ok" if one.passed else "fail",
        }
        for one in results
    ]
    columns = ["rule", "test", "wanted", "alerts", "one_by_one", "state"]
    show_rows(rows, columns, output, empty="no test")
    failed = sum(not one.passed for one in results)
    if failed or loaded.refusals:
        raise ProblemFound(f"{failed} tests fail, {len(loaded.refusals)} files are refused")


@rules_app.command("evaluate")
def rules_evaluate(
    *,
    folder: Folder = None,
    overrides: Overrides = None,
    seed: Annotated[
        int | None, typer.Option(help="Default: one that no rule was tuned with.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Events of load.")] = 100_000,
    days: Annotated[int, typer.Option(min=1, help="How long the load lasts.")] = 21,
    quiet_days: Annotated[
        int, typer.Option(min=0, help="Days without an attack, in which rules learn what is usual.")
    ] = 14,
    each: Annotated[int, typer.Option(min=1, help="How often each attack takes place.")] = 3,
    vendor: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="A folder of vendors' records, such as samples."
        ),
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make load with labelled attacks in it, and say what the rules find, miss, and find wrongly.

    Exit 1 if an attack was missed, or if there is more than one false alert in 100,000 events of load.
    """
    from pipeline.detections.evaluation import DEFAULT_SEED, TUNING_SEEDS, Scope, evaluate
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.entrypoints.cli.rule_tables import (
        EVALUATION_COLUMNS,
        VENDOR_COLUMNS,
        evaluation_rows,
        vendor_rows,
    )

    if quiet_days >= days:
        raise typer.BadParameter("--quiet-days must be less than --days")
    chosen = DEFAULT_SEED if seed is None else seed
    if chosen in TUNING_SEEDS:
        say(f"warning: rules were tuned with seed {chosen}; its figures are no evidence")
    loaded = _load(folder, overrides)
    rules = [one.rule for one in loaded.files]
    with progress("events", None) as done:
        scope = Scope(chosen, count, days, quiet_days, each)
        figures = evaluate(rules, scope, on_events=done.advance)
    rows = evaluation_rows(figures)
    records = vendor_rows(rules, vendor) if vendor else []
    if output is OutputFormat.JSON:
        show_json({"seed": chosen, "rules": rows, "vendor": records, "missed": figures.missed})
    else:
        show_rows(rows, EVALUATION_COLUMNS, output)
        if vendor:
            show_rows(records, VENDOR_COLUMNS, output, empty="no record")
    say(
        f"seed {chosen}: {len(figures.found)} of {len(figures.staged)} attacks found,"
        f" {figures.false_alerts} false alerts in {figures.normal_events} events of load"
    )
    if not figures.good:
        raise ProblemFound(
            f"missed: {', '.join(figures.missed) or 'none'}; or too many false alerts"
        )


@rules_app.command("backtest")
def rules_backtest(
    files: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, help="NDJSON or Avro, by time.")
    ],
    *,
    folder: Folder = None,
    overrides: Overrides = None,
    family: Annotated[str, typer.Option(help="Of events that do not say theirs.")] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Say what the rules would have alerted on, by day, in files of events as `rules` see them.

    Files are what `scripts/test_data_generator.py` writes; events within and over files come by time.
    """
    from pipeline.contracts.event_files import read_events
    from pipeline.entrypoints.cli.rule_tables import BACKTEST_COLUMNS, backtest_rows

    loaded = _load(folder, overrides)
    events = (found for file in files for found in read_events(file, family))
    rows = backtest_rows([one.rule for one in loaded.files], events)
    show_rows(rows, BACKTEST_COLUMNS, output, empty="no alert")


def _load(folder: Path | None, overrides: Path | None) -> Loaded:
    from importlib.resources import as_file, files

    from pipeline.detections.files import load_rules

    if folder is not None:
        loaded = load_rules(folder, overrides=overrides)
    else:
        with as_file(files("agents") / "rules") as shipped:
            loaded = load_rules(shipped, overrides=overrides)
    for refusal in loaded.refusals:
        say(f"refused: {refusal}")
    return loaded
