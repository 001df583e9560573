"""Commands for auditors: prove, export, verify-bundle."""

from __future__ import annotations

import inspect
import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from pipeline.entrypoints.cli.options import Families, Output, Yes
from pipeline.entrypoints.cli.output import (
    OutputFormat,
    Row,
    progress,
    say,
    show_json,
    show_rows,
    suggest,
)

_MICROSECOND = timedelta(microseconds=1)


class EventsFormat(StrEnum):
    """How events stand in a bundle."""

    NDJSON = "ndjson"
    AVRO = "avro"


class Right(StrEnum):
    """By which right personal data leaves the trail."""

    AUDIT = "audit"
    DATA_SUBJECT = "data-subject"
    LEGAL_CLAIM = "legal-claim"
    LEGAL_OBLIGATION = "legal-obligation"
    SUPERVISORY_AUTHORITY = "supervisory-authority"


Keys = Annotated[
    list[str] | None,
    typer.Option("--key", "-k", help="Verifier key that you trust; may be given again."),
]
KeyFile = Annotated[
    list[Path] | None,
    typer.Option("--key-file", exists=True, dir_okay=False, help="Such keys, one a line."),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(prove)
    app.command()(export)
    app.command(name="verify-bundle")(verify_bundle)


def prove(
    event_id: Annotated[str, typer.Argument(help="Of an event that the ledger has: a UUID.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="Write there, instead of to stdout."),
    ] = None,
    with_event: Annotated[
        bool,
        typer.Option("--with-event", help="Put the sealed event into the proof's extra line."),
    ] = False,
    event_out: Annotated[
        Path | None,
        typer.Option("--event", dir_okay=False, help="Write the sealed event's bytes there."),
    ] = None,
    key: Keys = None,
) -> None:
    """Write the proof that an event is in the trail (c2sp.org/tlog-proof@v1), verified beforehand.

    Whoever has the event's bytes and the log's verifier key checks it offline: verify-bundle does.
    """
    from dataclasses import replace

    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.cli.exporting import prove as prove_one
    from pipeline.settings import load_settings

    try:
        wanted = UUID(event_id)
    except ValueError:
        raise ConfigurationError("an event id is a UUID") from None
    found = prove_one(load_settings(), wanted, key or [])
    if (with_event or event_out) and found.canonical is None:
        raise ConfigurationError("the event itself has expired: only its leaf can be proven")
    proof = replace(found.proof, extra=found.canonical) if with_event else found.proof
    if out is None:
        sys.stdout.buffer.write(proof.encode())
    else:
        _write_file(out, proof.encode())
    if event_out is not None and found.canonical is not None:
        _write_file(event_out, found.canonical)
    say(f"leaf {found.leaf_index} of {found.log}, under the checkpoint of {found.size} leaves")


def export(
    out: Annotated[Path, typer.Argument(dir_okay=False, help="The bundle; must not be there.")],
    *,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Whose events.")] = None,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="Every tenant's.")] = False,
    since: Annotated[
        datetime | None, typer.Option("--from", help="From this occurred_at on, UTC.")
    ] = None,
    before: Annotated[datetime | None, typer.Option("--to", help="Before this one, UTC.")] = None,
    family: Families = None,
    action: Annotated[
        list[str] | None, typer.Option("--action", help="Only this one; may be given again.")
    ] = None,
    subject: Annotated[
        tuple[str, str, str] | None,
        typer.Option(
            "--subject", metavar="TENANT ID_TYPE ID", help="Only with values of this person."
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option("--log", help="<topic>/<partition>/<epoch>; may be repeated."),
    ] = None,
    from_leaf: Annotated[int, typer.Option(min=0, help="Of the one --log.")] = 0,
    to_leaf: Annotated[int | None, typer.Option(min=1, help="Not included.")] = None,
    events_format: Annotated[
        EventsFormat, typer.Option("--format", help="How events stand in the bundle.")
    ] = EventsFormat.NDJSON,
    personal_data: Annotated[
        bool, typer.Option("--personal-data", help="Open sealed values; needs --right, --reason.")
    ] = False,
    right: Annotated[Right | None, typer.Option("--right", help="By which right.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="For what; kept sealed.")] = "",
    without_tiles: Annotated[
        bool, typer.Option("--without-tiles", help="Prove from the ledger's leaves alone.")
    ] = False,
    wait_s: Annotated[
        float, typer.Option("--wait", min=1, help="Seconds until the trail must hold the export.")
    ] = 60.0,
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Write events with what proves them into one file, which verify-bundle checks offline.

    It reaches to the newest checkpoint of each log. Sealed values stay sealed unless --personal-data
    is given. The trail itself records who exported what, before the bundle is finished: a worker
    must run. Needs AUDIT_SIGNING_KEY_FILE.
    """
    from pipeline.compliance.export import ExportRequest
    from pipeline.compliance.export_filters import ExportFilters, log_names, only_tenants
    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.cli import exporting
    from pipeline.entrypoints.cli.announcing import operator_of
    from pipeline.entrypoints.cli.version import product_version
    from pipeline.settings import load_settings

    why = None
    settings = load_settings()
    if personal_data:
        if right is None or not reason.strip():
            raise ConfigurationError("personal data leaves only with --right and --reason")
        if len(reason) > settings.text_max_chars or not reason.isprintable():
            raise ConfigurationError(
                f"--reason is one line of at most {settings.text_max_chars} characters"
            )
        why = exporting.Why(right.value, reason.strip())
    elif right is not None or reason:
        raise ConfigurationError("--right and --reason are for --personal-data")
    filters = ExportFilters(
        tenants=only_tenants(tenant, all_tenants=all_tenants),
        all_tenants=all_tenants,
        from_us=_us(since),
        to_us=_us(before),
        families=tuple(family or ()),
        actions=tuple(action or ()),
        logs=log_names(log or []),
        subjects=None if subject is None else exporting.subject_refs(settings, subject),
        from_leaf=from_leaf,
        to_leaf=to_leaf,
    )
    if why is not None and not yes:
        say(f"would open personal data of {tenant or 'every tenant'} by the right {why.right}")
        say(f"the trail will record it with your name ({operator_of(settings)}) and the reason")
        suggest("the same with --yes", output)
        return
    request = ExportRequest(
        filters=filters,
        events_format=events_format.value,
        origin=settings.log_origin,
        exported_by=operator_of(settings),
        exported_at_us=int(datetime.now(UTC).timestamp() * 1_000_000),
        product=product_version(),
        right=None if why is None else why.right,
    )
    with progress("exporting events", None) as done:
        manifest = exporting.export(
            settings,
            out,
            request,
            why=why,
            use_tiles=not without_tiles,
            wait_s=wait_s,
            on_events=done.advance,
        )
    if output is OutputFormat.JSON:
        show_json({**manifest, "file": str(out), "bytes": out.stat().st_size})
    else:
        columns = ["log", "events", "first_leaf", "last_leaf", "complete", "checkpoint"]
        show_rows(exporting.rows_of(manifest), columns, output, empty="no log is in it")
    suggest(f"audit-trail verify-bundle {out} --key VKEY", output)


def verify_bundle(
    file: Annotated[
        Path | None,
        typer.Argument(dir_okay=False, help="A bundle, or a proof of one event."),
    ] = None,
    *,
    key: Keys = None,
    key_file: KeyFile = None,
    exporter_key: Annotated[
        list[str] | None,
        typer.Option("--exporter-key", help="Who may sign manifests, if not who signs logs."),
    ] = None,
    event: Annotated[
        Path | None,
        typer.Option("--event", dir_okay=False, help="Of a proof: the event's bytes."),
    ] = None,
    print_verifier: Annotated[
        bool, typer.Option("--print-verifier", help="Print the program that does this, and end.")
    ] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Verify a bundle or a proof offline: no database, no network, no setting.

    Keys are those that you got from the trail's operator on another way than the bundle.
    """
    from pipeline import verifier
    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.cli.failures import ProblemFound

    if print_verifier:
        sys.stdout.write(inspect.getsource(verifier))
        return
    if file is None:
        raise ConfigurationError("name the bundle: audit-trail verify-bundle FILE --key VKEY")
    try:
        keys = verifier.read_keys(key or [], key_file or [])
        exporters = verifier.read_keys(exporter_key or [], ())
    except (verifier.Refused, OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(error)) from None
    if not keys:
        raise ConfigurationError("name a key that you trust: --key VKEY or --key-file FILE")
    try:
        report = verifier.verify_file(file, keys, exporters, event)
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: {error.strerror}") from None
    if output is OutputFormat.JSON:
        show_json(
            {
                "verified": not report.problems,
                "problems": report.problems,
                "statements": report.statements,
                "manifest": {
                    name: value for name, value in report.manifest.items() if name != "members"
                },
            }
        )
    else:
        rows: list[Row] = [{"state": "ok", "what": text} for text in report.statements]
        rows += [{"state": "fail", "what": text} for text in report.problems]
        show_rows(rows, ["state", "what"], output)
    if report.problems:
        raise ProblemFound("the file does not verify: do not rely on it")
    say("verified")


def _us(time: datetime | None) -> int | None:
    """Microseconds since 1970; a time without a zone is UTC."""
    if time is None:
        return None
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND


def _write_file(path: Path, content: bytes) -> None:
    from pipeline.domain.errors import ConfigurationError

    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written ({error.strerror})") from None
