"""How commands end: the exit status, and one line for a person."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from pipeline.domain.errors import ChainBroken, ConfigurationError, Unavailable
from pipeline.entrypoints.cli.failures import ProblemFound, run


def ending(error: BaseException) -> Callable[[], object]:
    def command() -> object:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ProblemFound("3 checks failed"), 1),
        (ChainBroken("t/1/1", "the archive has more"), 1),
        (ConfigurationError("AUDIT_KEY_FILE is not set"), 2),
        (Unavailable("postgres", "refused"), 3),
        (KeyboardInterrupt(), 130),
        (ValueError("a@example.com"), 1),
    ],
)
def test_the_exit_status_says_who_must_act(error: BaseException, status: int) -> None:
    with pytest.raises(SystemExit) as ended:
        run(ending(error))

    assert ended.value.code == status


def test_an_outage_comes_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(ending(Unavailable("kafka", "timed out")))

    assert "AUDIT_KAFKA_BOOTSTRAP" in capsys.readouterr().err


def test_a_bug_is_named_without_what_its_message_quotes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(ending(ValueError("a@example.com")))

    said = capsys.readouterr().err
    assert "ValueError at test_cli_failures.py" in said
    assert "example.com" not in said


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    script = (
        "from pipeline.entrypoints.cli.main import main; import sys;"
        " sys.argv = ['audit-trail', 'settings', '-o', 'env']; main()"
    )
    for_once = f'{sys.executable} -c "{script}" | head -1; echo "${{PIPESTATUS[0]}}"'

    done = subprocess.run(  # fixed text
        ["bash", "-c", for_once], capture_output=True, text=True, check=True, env=dict(os.environ)
    )

    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
