"""The commands themselves: found, explained, quick to start, alike in their options."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer.main
from typer.testing import CliRunner

from pipeline.entrypoints.cli.main import app

# Commands that print no data of their own on stdout, or bytes that no format fits.
WITHOUT_FORMAT = {
    *(
        "mac-key",
        "worker",
        "resume",
        "open-epoch",
        "dead-letter show",
        "relay serve",
        "relay token",
    ),
    *("erase certificate", "erase withdraw"),
    "log serve",
    "subject report",  # a document: --format
}
HEAVY = ("confluent_kafka", "psycopg", "boto3", "elasticsearch", "pydantic", "aiohttp", "faust")
# Nothing listens there: a command that needs a server fails at once.
NOWHERE = {
    "AUDIT_KAFKA_BOOTSTRAP": "127.0.0.1:9",
    "AUDIT_REGISTRY_URL": "http://127.0.0.1:9",
    "AUDIT_DATABASE_URL": "postgresql://audit_writer@127.0.0.1:9/audit",
}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command's words, and its options."""
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        for inner_name, inner in getattr(command, "commands", {"": command}).items():
            options = [option for parameter in inner.params for option in parameter.opts]
            yield f"{name} {inner_name}".strip(), options


def run(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # our own program
        [sys.executable, "-m", "pipeline.entrypoints.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin", **(env or {})},
        timeout=60,
    )


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(app, [*name.split(), "--help"])

    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert len(result.output.splitlines()) > 4


@pytest.mark.parametrize(("name", "options"), list(commands()))
def test_every_command_that_prints_data_has_the_same_output_option(
    name: str, options: list[str]
) -> None:
    assert ("--output" in options) == (name not in WITHOUT_FORMAT)


@pytest.mark.parametrize(("name", "options"), list(commands()))
def test_no_secret_can_be_given_as_a_flag(name: str, options: list[str]) -> None:
    assert not [option for option in options if "password" in option or "secret" in option]


def test_help_loads_no_client_library() -> None:
    script = (
        "import sys; from pipeline.entrypoints.cli.main import app;"
        f" print([name for name in {HEAVY!r} if name in sys.modules])"
    )

    done = subprocess.run(  # fixed text
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_a_misspelt_command_is_a_usage_error_with_a_suggestion() -> None:
    done = run("docter")

    assert done.returncode == 2
    assert "doctor" in done.stderr
    assert done.stdout == ""


def test_a_wrong_setting_is_named_and_its_value_is_not() -> None:
    done = run("status", env={"AUDIT_HTTP_PORT": "a@example.com"})

    assert done.returncode == 2
    assert "AUDIT_HTTP_PORT" in done.stderr
    assert "example.com" not in done.stderr


@pytest.mark.parametrize(
    ("words", "server"),
    [("status", "postgres"), ("schemas check", "registry"), ("tenants list", "postgres")],
)
def test_a_server_that_is_down_is_exit_status_three_and_one_line_of_advice(
    words: str, server: str
) -> None:
    done = run(*words.split(), env=NOWHERE)

    assert done.returncode == 3
    assert f"error: {server} unavailable" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_data_goes_to_stdout_alone() -> None:
    done = run("settings", "--output", "json")

    assert done.returncode == 0
    assert {"variable", "default", "set", "meaning"} <= set(json.loads(done.stdout)[0])
    assert done.stderr == ""


def test_replay_and_list_refuse_a_reason_that_does_not_exist() -> None:
    result = run("dead-letter", "replay", "--reason", "whim")

    assert result.returncode == 2
    assert "no such reason: whim" in result.stderr
    assert "truncated" in result.stderr


def test_replay_must_be_told_which_letters() -> None:
    result = run("dead-letter", "replay")

    assert result.returncode == 2
    assert "--reason, --id or --all" in result.stderr
