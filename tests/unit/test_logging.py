"""Logs: one JSON line per event, nothing of an audit event in it, nothing that breaks a line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.errors import Reason, Unavailable
from pipeline.domain.logs import LogName
from pipeline.logging import JsonFormatter, configure_logging, log_event, name_error

LOGGER = logging.getLogger("pipeline.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    captured = io.StringIO()
    configure_logging("INFO", stream=captured)
    yield captured
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def formatted(**fields: object) -> str:
    record = LOGGER.makeRecord(LOGGER.name, logging.INFO, "f", 1, "batch_stored", (), None)
    record.audit_fields = fields
    return JsonFormatter().format(record)


def test_an_event_is_a_name_and_facts(stream: io.StringIO) -> None:
    log_event(
        LOGGER, "batch_stored", sink="ledger", log=LogName("t", 3), records=85, id=UUID(int=1)
    )

    (line,) = lines(stream)
    assert line["event"] == "batch_stored"
    assert (line["sink"], line["log"], line["records"]) == ("ledger", "t/3/1", 85)
    assert (line["level"], line["logger"]) == ("info", "pipeline.test")
    assert line["time"].endswith("Z")


@given(text=st.text())
def test_a_field_cannot_break_the_line_and_reads_back(text: str) -> None:
    line = formatted(topic=text)

    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["topic"] == text


def test_line_characters_beyond_ascii_are_encoded() -> None:
    line = formatted(topic="a\u0085b\u2028c\x7fd\r\ne\x1b[31m")

    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert "\x7f" not in line


def test_a_field_cannot_take_the_place_of_the_frame() -> None:
    line = json.loads(formatted(level="fake", time="fake", error="fake"))

    assert line["level"] == "info"
    assert line["level_"] == line["time_"] == line["error_"] == "fake"


def test_a_drivers_message_is_left_out_and_its_code_kept(stream: io.StringIO) -> None:
    class UniqueViolation(Exception):
        sqlstate = "23505"

    def fail() -> None:
        cause = UniqueViolation("DETAIL: Key (email)=(a@example.com) already exists.")
        raise Unavailable("postgres") from cause

    try:
        fail()
    except Unavailable as error:
        log_event(LOGGER, "write_failed", level=logging.WARNING, error=error)

    (line,) = lines(stream)
    assert "example.com" not in stream.getvalue()
    assert line["error"]["message"] == "postgres unavailable"
    assert line["error"]["causes"][0]["sqlstate"] == "23505"
    assert "test_logging.py" in line["error"]["stack"][0]


def test_a_librarys_arguments_lose_their_exceptions_text(stream: io.StringIO) -> None:
    error = ValueError("a@example.com")

    logging.getLogger("mode").error("[%s] Crashed reason=%r", "Agent", error)
    logging.getLogger("aiokafka").info("chatter")

    (line,) = lines(stream)
    assert line["event"] == "library_message"
    assert line["message"] == "[Agent] Crashed reason='ValueError'"


def test_prose_of_a_framework_under_our_own_name_is_not_logged(stream: io.StringIO) -> None:
    logging.getLogger("agents.app").info("[^AuditApp]: Wait for streams...")
    log_event(logging.getLogger("agents.app"), "worker_began")

    assert [line["event"] for line in lines(stream)] == ["worker_began"]


def test_a_tasks_unseen_exception_is_named_without_its_text(stream: io.StringIO) -> None:
    async def fail() -> None:
        raise ValueError("a@example.com")

    async def lose() -> None:
        task = asyncio.ensure_future(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task

    asyncio.run(lose())

    assert "never retrieved" in stream.getvalue()
    assert "example.com" not in stream.getvalue()
    assert lines(stream)[0]["error"]["type"] == "builtins.ValueError"


def test_a_format_that_does_not_fit_is_still_logged() -> None:
    record = LOGGER.makeRecord("somebody", logging.WARNING, "f", 1, "took %d s", ("long",), None)

    assert json.loads(JsonFormatter().format(record))["message"] == "took %d s"


def test_fields_of_unknown_objects_show_only_their_type() -> None:
    class Event:
        def __repr__(self) -> str:
            return "a@example.com"

    line = json.loads(formatted(what=Event(), reason=Reason.EXPIRED, many=[b"\x01", Event()]))

    assert (line["what"], line["reason"], line["many"]) == ("Event", "expired", ["01", "Event"])


def test_an_error_is_named_in_a_few_safe_words() -> None:
    assert name_error(OSError(2, "a@example.com")) == "FileNotFoundError (errno 2)"
    assert name_error(Unavailable("s3", "timeout")) == "s3 unavailable: timeout"
