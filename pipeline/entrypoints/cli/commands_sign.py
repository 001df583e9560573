"""Commands of whoever signs, and of whoever serves what was signed: signing-key, signer, log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.options import Output, Yes
from pipeline.entrypoints.cli.output import OutputFormat, Row, say, show_rows, suggest

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.keys.signing_keys import SigningKey
    from pipeline.settings import Settings

keys_app = typer.Typer(no_args_is_help=True, help="The keys that sign checkpoints.")

signer_app = typer.Typer(
    no_args_is_help=True, help="Checkpoints: the heads of the logs, signed under Object Lock."
)

log_app = typer.Typer(no_args_is_help=True, help="The logs, for whoever checks them.")

_COLUMNS = ["key_id", "state", "made_at", "retired_at", "vkey"]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(keys_app, name="signing-key")
    signer_app.command("run")(signer_run)
    app.add_typer(signer_app, name="signer")
    log_app.command("serve")(log_serve)
    app.add_typer(log_app, name="log")


def signer_run(
    *,
    once: Annotated[bool, typer.Option("--once", help="One look at every log, then end.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Sign every log that grows, until stopped: SIGTERM or Ctrl-C end it in order.

    Needs AUDIT_SIGNER_DATABASE_URL, the archive bucket, AUDIT_SIGNING_KEY_FILE, and the key provider
    to unwrap the keys in it. /metrics, /healthz and /readyz listen on AUDIT_SIGNER_HTTP_PORT.
    With --once: exit 1 if a log is refused (it does not follow from what was signed), 3 if a server
    does not answer; all other logs are signed.
    """
    from pipeline.domain.errors import Unavailable
    from pipeline.entrypoints.cli.failures import ProblemFound
    from pipeline.entrypoints.signer import run_signer, sign_once
    from pipeline.settings import load_settings

    if not once:
        run_signer(load_settings())
        return
    done, rows = sign_once(load_settings())
    columns = ["log", "leaves", "signed", "state", "why"]
    show_rows(rows, columns, output, empty="no log has a leaf yet")
    if done.refused:
        raise ProblemFound(
            f"{len(done.refused)} logs are refused: see docs/runbooks/refused-log.md"
        )
    if done.waiting_for:
        raise Unavailable(done.waiting_for[0], "not every log could be signed")


def log_serve() -> None:
    """Serve checkpoints and tiles over HTTP until stopped: SIGTERM or Ctrl-C end it in order.

    GET /LOG/checkpoint and /LOG/tile/L/N, as C2SP tlog-tiles has them; LOG is topic/partition/epoch.
    It reads the archive bucket and needs no key and no database. It shows hashes and sizes to whoever
    reaches AUDIT_LOG_HTTP_HOST and _PORT.
    """
    from importlib.util import find_spec

    from pipeline.domain.errors import ConfigurationError
    from pipeline.settings import load_settings

    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise ConfigurationError(
            "the log server needs fastapi and uvicorn: install audit-trail-pipeline with the extra `api`"
        )
    from pipeline.entrypoints.log_server import run_log_server

    run_log_server(load_settings())


@keys_app.command("create")
def keys_create(
    *,
    name: Annotated[
        str, typer.Option("--name", help="Of the key, in every note. Default: AUDIT_LOG_ORIGIN.")
    ] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make a key and add it to AUDIT_SIGNING_KEY_FILE: from now on it signs, beside those that do.

    The seed is wrapped by the key provider and never shown. Hand the verifier key to whoever checks.
    """
    from datetime import UTC, datetime

    from pipeline.domain.errors import ConfigurationError
    from pipeline.keys.provider import load_seed_provider
    from pipeline.keys.signing_keys import active_keys, add_key, make_key, read_keys
    from pipeline.settings import load_settings

    settings = load_settings()
    path = _path(settings)
    others = len(active_keys(read_keys(path))) if path.exists() else 0
    key = make_key(
        load_seed_provider(settings),
        name or settings.log_origin,
        now=datetime.now(UTC).replace(microsecond=0),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path.parent} cannot be made") from error
    add_key(path, key)
    show_rows([_row(key)], _COLUMNS, output)
    if others:
        suggest(
            "hand out the new verifier key, then audit-trail signing-key retire OLD_KEY_ID", output
        )
    else:
        suggest("audit-trail signer run", output)


@keys_app.command("list")
def keys_list(
    *,
    vkeys: Annotated[
        bool,
        typer.Option("--vkeys", help="Only the verifier keys, for AUDIT_VERIFIER_KEYS_FILE."),
    ] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List the keys with their verifier keys, which whoever checks the trail needs."""
    from pipeline.keys.signing_keys import read_keys
    from pipeline.settings import load_settings

    keys = read_keys(_path(load_settings()))
    if vkeys:
        sys.stdout.write("".join(f"{key.verifier}\n" for key in keys))
        return
    rows = [_row(key) for key in keys]
    show_rows(rows, _COLUMNS, output, empty="no keys; run: audit-trail signing-key create")


@keys_app.command("retire")
def keys_retire(
    key_id: Annotated[str, typer.Argument(help="As `signing-key list` shows it.")],
    *,
    yes: Yes = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Let a key sign no more. What it signed still verifies, with its verifier key.

    Every signer that runs takes it up at its next round. The last key cannot be retired.
    """
    from datetime import UTC, datetime

    from pipeline.keys.signing_keys import retire_key
    from pipeline.settings import load_settings

    path = _path(load_settings())
    if not yes:
        say(f"would retire {key_id} of {path}")
        suggest("the same with --yes", output)
        return
    show_rows(
        [_row(retire_key(path, key_id.lower(), now=datetime.now(UTC).replace(microsecond=0)))],
        _COLUMNS,
        output,
    )


def _path(settings: Settings) -> Path:
    from pipeline.domain.errors import ConfigurationError

    if settings.signing_key_file is None:
        raise ConfigurationError("AUDIT_SIGNING_KEY_FILE is not set: name a file for the keys")
    return settings.signing_key_file


def _row(key: SigningKey) -> Row:
    return {
        "key_id": key.verifier.key_id.hex(),
        "state": "signs" if key.retired_at is None else "retired",
        "made_at": key.made_at.isoformat(),
        "retired_at": None if key.retired_at is None else key.retired_at.isoformat(),
        "vkey": str(key.verifier),
    }
