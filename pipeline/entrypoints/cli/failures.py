"""How a command ends: exit codes, and errors put into words for a person.

0 done; 1 done, and a problem was found; 2 wrong usage or configuration; 3 a server does not
answer; 130 interrupted. A traceback is shown only with AUDIT_DEBUG=1: the messages in it may
quote values of events.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from pipeline.domain.errors import AuditTrailError, ConfigurationError, Unavailable

EXIT_OK: Final = 0
EXIT_PROBLEM: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 3
EXIT_INTERRUPTED: Final = 130

EXIT_CODES_HELP: Final = (
    "Exit status: 0 done, 1 a problem was found, 2 usage or configuration,"
    " 3 a server does not answer, 130 interrupted."
)
ADVICE: Final = {
    "postgres": "is the database up, and AUDIT_DATABASE_URL right?",
    "kafka": "are the brokers up, and AUDIT_KAFKA_BOOTSTRAP right?",
    "registry": "is the schema registry up, and AUDIT_REGISTRY_URL right?",
    "elasticsearch": "is the index up, and AUDIT_ELASTICSEARCH_URL right?",
    "kms": "is KMS reachable, and AUDIT_KMS_REGION or AUDIT_KMS_ENDPOINT_URL right?",
    "s3": "is the object store up, and AUDIT_S3_ENDPOINT_URL right?",
}


class ProblemFound(AuditTrailError):
    """The command did its work and found something wrong: exit status 1."""


def run(command: Callable[[], object]) -> NoReturn:
    """Run the whole program and end the process."""
    try:
        command()
        code = EXIT_OK
    except ConfigurationError as error:
        code = _end(f"error: {error}", EXIT_USAGE)
    except Unavailable as error:
        advice = ADVICE.get(error.what, "is it up?")
        code = _end(
            f"error: {error}\n{advice} `audit-trail doctor` checks it all", EXIT_UNAVAILABLE
        )
    except AuditTrailError as error:
        code = _end(f"error: {error}", EXIT_PROBLEM)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough (``| head``); nothing is left to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_OK
    except Exception as error:  # noqa: BLE001 - the one place: the process's entry point
        code = _end(_bug(error), EXIT_PROBLEM)
    sys.exit(code)


def _end(message: str, code: int) -> int:
    from pipeline.entrypoints.cli.output import say

    if os.environ.get("AUDIT_DEBUG"):
        traceback.print_exc()
    say(message)
    return code


def _bug(error: Exception) -> str:
    from pipeline.logging import name_error

    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return (
        f"error: unexpected {name_error(error)} at {place}; this is a bug, please report it"
        "\nAUDIT_DEBUG=1 shows the stack (its messages may quote values)"
    )
