r"""JSON logs on stderr: one line per event, a constant name and facts as fields.

A line never holds a control or line character of its own making (all of them, and everything
outside ASCII, are written as ``\uXXXX``: ASVS 5.0 §16.4.1), and never the content of an audit
event: the message of an exception that this project did not raise itself is left out, since
drivers quote values in it (PostgreSQL's ``DETAIL``, an encoder's input).
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from enum import Enum
from pathlib import PurePath
from typing import IO, Final
from uuid import UUID

from pipeline.domain.errors import AuditTrailError
from pipeline.domain.logs import LogName

# Ours say what happened in a name and fields; all the others write prose.
OWN_PACKAGES: Final = ("pipeline", "agents", "sinks")
# What these say at INFO is of no use to who runs the trail, and costs time under load.
QUIET_LIBRARIES: Final = (
    "aiokafka",
    "faust",
    "mode",
    "elastic_transport",
    "elasticsearch",
    "boto3",
    "botocore",
    "s3transfer",
    "urllib3",
    "httpx",
    "httpcore",
    "aiohttp.access",
    "asyncio",
    "psycopg",
    "alembic",
)
PROSE_MAX_CHARS: Final = 500
CAUSES_MAX: Final = 5
FRAMES_MAX: Final = 30


def configure_logging(level: str = "INFO", *, stream: IO[str] | None = None) -> None:
    """Send every logger of the process, as JSON, to ``stream`` (stderr unless told otherwise).

    Call it once, in the composition root, before a library has logged; a second call replaces
    what the first one set.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(_is_wanted)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for package in OWN_PACKAGES:
        logging.getLogger(package).setLevel(level.upper())
    for library in QUIET_LIBRARIES:
        logger = logging.getLogger(library)
        # Faust and mode bring handlers of their own, which would print each line twice.
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def log_event(
    logger: logging.Logger,
    event: str,
    /,
    *,
    level: int = logging.INFO,
    error: BaseException | None = None,
    **fields: object,
) -> None:
    """Say that something happened: ``log_event(log, "batch_stored", sink="index", records=8)``.

    ``event`` is a constant phrase in the past tense. Fields are identifiers, counts and durations
    with the unit in their name; never a value of an audit event. ``error`` adds type and stack.
    """
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"audit_fields": fields, "audit_error": error})


class JsonFormatter(logging.Formatter):
    """One JSON object per record: ``time``, ``level``, ``event``, ``logger``, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
        }
        fields: Mapping[str, object] | None = getattr(record, "audit_fields", None)
        error: BaseException | None = getattr(record, "audit_error", None)
        if fields is None:
            line["event"] = "library_message"
            fields = {"message": _prose(record)}
        else:
            line["event"] = str(record.msg)
        line["logger"] = record.name
        if error is None and record.exc_info:
            error = record.exc_info[1]
        for name, value in fields.items():
            line[f"{name}_" if name in line or name == "error" else name] = _plain(value)
        if error is not None:
            line["error"] = describe_error(error)
        # json escapes C0 controls and, asked for ASCII, U+0085 and U+2028; DEL alone is left.
        return json.dumps(line, ensure_ascii=True).replace("\x7f", "\\u007f")


def describe_error(error: BaseException) -> dict[str, object]:
    """An exception as fields: type, what identifies it, stack, causes; no foreign message."""
    described = _describe_one(error)
    causes: list[dict[str, object]] = []
    seen = {id(error)}
    cause = _cause_of(error)
    while cause is not None and id(cause) not in seen and len(causes) < CAUSES_MAX:
        seen.add(id(cause))
        causes.append(_describe_one(cause))
        cause = _cause_of(cause)
    if causes:
        described["causes"] = causes
    return described


def name_error(error: BaseException) -> str:
    """An exception in a few words that are safe to show: ``UniqueViolation (sqlstate 23505)``."""
    if isinstance(error, AuditTrailError):
        return str(error)
    described = _describe_one(error, stack=False)
    marks = [f"{name} {value}" for name, value in described.items() if name != "type"]
    kind = type(error).__name__
    return f"{kind} ({', '.join(marks)})" if marks else kind


def _is_wanted(record: logging.LogRecord) -> bool:
    """Our events at their level; prose only as a warning.

    Faust logs as the modules of our own classes, so that its chatter passes by logger name.
    """
    return hasattr(record, "audit_fields") or record.levelno >= logging.WARNING


def _describe_one(error: BaseException, *, stack: bool = True) -> dict[str, object]:
    kind = type(error)
    described: dict[str, object] = {"type": f"{kind.__module__}.{kind.__qualname__}"}
    if isinstance(error, AuditTrailError):
        # Ours promise to hold no content; the type's contract is in ``pipeline.domain.errors``.
        described["message"] = str(error)
    for attribute, kinds in (("sqlstate", str), ("errno", int), ("status_code", int)):
        mark = getattr(error, attribute, None)
        if isinstance(mark, kinds):
            described[attribute] = mark
    if stack and error.__traceback__ is not None:
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
        described["stack"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return described


def _cause_of(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    return None if error.__suppress_context__ else error.__context__


def _prose(record: logging.LogRecord) -> str:
    """A library's message, without what it quotes of exceptions.

    Only the first line: asyncio puts the failed task, and so the exception's text, on the next.
    """
    arguments = record.args
    if isinstance(arguments, Mapping):
        arguments = {name: _harmless(value) for name, value in arguments.items()}
    elif isinstance(arguments, tuple):
        arguments = tuple(_harmless(value) for value in arguments)
    message = (
        str(record.msg) if not isinstance(record.msg, BaseException) else name_error(record.msg)
    )
    if arguments:
        # Where a library's format does not fit its arguments, the bare format still says where.
        with contextlib.suppress(TypeError, ValueError, KeyError):
            message = message % arguments
    first_line = message.splitlines()[0] if message else ""
    return first_line[:PROSE_MAX_CHARS]


def _harmless(value: object) -> object:
    """A library's argument, with any exception in it reduced to its name."""
    return name_error(value) if isinstance(value, BaseException) else value


def _plain(value: object) -> object:
    """What JSON can say of a field; of an object that is not known to be harmless, its type."""
    match value:
        case Enum():
            plain = _plain(value.value)
        case None | bool() | int() | float() | str():
            plain = value
        case LogName() | UUID() | PurePath():
            plain = str(value)
        case datetime():
            plain = value.isoformat()
        case bytes():
            plain = value.hex()
        case BaseException():
            plain = name_error(value)
        case Mapping():
            plain = {str(name): _plain(item) for name, item in value.items()}
        case Sequence() | AbstractSet():
            plain = [_plain(item) for item in value]
        case _:
            plain = type(value).__name__
    return plain
