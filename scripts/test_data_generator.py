"""Made load with labelled attacks in it, to a file or to Kafka.

  test_data_generator.py --out events.jsonl --count 10000           JSON lines: family, event, label
  test_data_generator.py --kafka --labels labels.jsonl --count 1000  published; labels: event id, label
  test_data_generator.py --list                                      the attacks, a line each

The same options give the same events. Files are what `scripts/validate_event_schema.py events` reads.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from pipeline.domain.errors import AuditTrailError
from pipeline.entrypoints.cli.output import say
from pipeline.generator.attacks import ATTACKS, LabelledEvent, labelled


def main(
    *,
    count: Annotated[int, typer.Option(min=0, help="Events of load, beside the attacks.")] = 10_000,
    seed: int = 1,
    start: Annotated[
        datetime | None, typer.Option(help="The first event's time, UTC; a day ago unless given.")
    ] = None,
    hours: Annotated[float, typer.Option(min=0.01, help="How long the load lasts.")] = 24.0,
    tenants: Annotated[str, typer.Option(help="Comma separated.")] = "acme,globex,initech",
    attacks: Annotated[str, typer.Option(help="Comma separated names, all, or none.")] = "all",
    each: Annotated[int, typer.Option(min=1, help="How often each attack takes place.")] = 1,
    out: Annotated[Path | None, typer.Option(help="A file for JSON lines; - for stdout.")] = None,
    kafka: Annotated[
        bool, typer.Option("--kafka", help="Publish, by the AUDIT_* settings.")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(help="With --kafka: a file for the labels.")
    ] = None,
    names: Annotated[bool, typer.Option("--list", help="List the attacks.")] = False,
) -> None:
    """Make load with labelled attacks in it."""
    if names:
        for name, attack in ATTACKS.items():
            print(f"{name:32}{attack.__doc__}")
        return
    if (out is None) is not kafka:
        raise typer.BadParameter("give either --out or --kafka")
    chosen = {"all": tuple(ATTACKS), "none": ()}.get(attacks) or tuple(
        name for name in attacks.split(",") if name != "none"
    )
    begin = start or datetime.now(UTC) - timedelta(days=1)
    at = begin if begin.tzinfo else begin.replace(tzinfo=UTC)
    named = tenants.split(",")
    try:
        events = labelled(
            count,
            seed=seed,
            start_at_us=int(at.timestamp()) * 1_000_000,
            span_us=int(hours * 3_600_000_000),
            tenants=named,
            attacks=chosen,
            each=each,
        )
        found = publish(events, named, count, labels) if out is None else write(events, out)
    except (LookupError, AuditTrailError) as error:
        say(f"error: {error}")
        raise typer.Exit(2) from None
    attacked = sum(number for label, number in found.items() if label)
    say(f"{found.total()} events, {attacked} of them of {len(chosen) * each} attacks")


def write(events: Iterable[LabelledEvent], path: Path) -> Counter[str]:
    """Write JSON lines; how many events of each label."""
    found: Counter[str] = Counter()
    opened: Any = nullcontext(sys.stdout) if str(path) == "-" else path.open("w", encoding="utf-8")
    with opened as file:
        for one in events:
            found[one.label] += 1
            line = {"family": one.family, "event": one.event, "label": one.label}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return found


def publish(
    events: Iterable[LabelledEvent], tenants: list[str], count: int, labels: Path | None
) -> Counter[str]:
    """Publish, and note the labels; how many events of each label."""
    from pipeline.entrypoints.cli.generating import publish_events
    from pipeline.entrypoints.cli.schema_ids import registered_ids
    from pipeline.entrypoints.cli.tenants import require_tenants
    from pipeline.importers.encode import EventEncoder
    from pipeline.settings import load_settings

    settings = load_settings()
    require_tenants(settings, tenants, create=False)
    encoder = EventEncoder(registered_ids(settings))
    found: Counter[str] = Counter()
    with labels.open("w", encoding="utf-8") if labels else nullcontext() as file:
        publish_events(settings, encoder, noting(events, found, file), count=count)
    return found


def noting(
    events: Iterable[LabelledEvent], found: Counter[str], file: IO[str] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events; what has a label is noted on the way."""
    for one in events:
        found[one.label] += 1
        if one.label and file is not None:
            line = {"event_id": one.event["event_id"], "label": one.label}
            file.write(json.dumps(line) + "\n")
        yield one.family, one.event


if __name__ == "__main__":
    typer.run(main)
