"""What commands show: data on stdout, whole and harmless to a terminal."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout

from hypothesis import given
from hypothesis import strategies as st

from pipeline.entrypoints.cli.output import (
    OutputFormat,
    Row,
    printable,
    progress,
    say,
    show_rows,
    suggest,
)

CELLS = st.none() | st.booleans() | st.integers() | st.text()


def shown(rows: list[Row], output: OutputFormat) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        show_rows(rows, ["a", "b"], output, empty="nothing here")
    return out.getvalue(), err.getvalue()


@given(cells=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_no_value_can_forge_a_row_or_move_the_cursor(cells: list[tuple[object, object]]) -> None:
    rows: list[Row] = [{"a": a, "b": b} for a, b in cells]  # type: ignore[dict-item]

    table, _ = shown(rows, OutputFormat.TABLE)

    assert len(table.splitlines()) == len(cells) + 1
    assert not any(char < " " or "\x7f" <= char < "\xa0" for char in table.replace("\n", ""))


@given(cells=st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_json_reads_back_as_it_was_and_is_ascii(cells: list[tuple[object, object]]) -> None:
    rows: list[Row] = [{"a": a, "b": b} for a, b in cells]  # type: ignore[dict-item]

    text, _ = shown(rows, OutputFormat.JSON)

    assert json.loads(text) == rows
    assert text.replace("\n", "").isprintable()
    assert text.isascii()


def test_a_table_aligns_numbers_right_and_text_left() -> None:
    table, _ = shown([{"a": "x", "b": 5}, {"a": "long", "b": 1000}], OutputFormat.TABLE)

    assert table.splitlines() == ["a        b", "x        5", "long  1000"]


def test_an_empty_list_says_so_on_stderr_and_is_an_empty_array_in_json() -> None:
    assert shown([], OutputFormat.TABLE) == ("", "nothing here\n")
    assert shown([], OutputFormat.JSON) == ("[]\n", "")


def test_text_that_reorders_itself_is_shown_as_it_is_written() -> None:
    assert printable("a\u202eb\x1b[31m\r") == "a\\u202eb\\u001b[31m\\u000d"


def test_messages_and_advice_go_to_stderr_and_advice_not_to_scripts() -> None:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        say("hello")
        suggest("audit-trail status")
        suggest("audit-trail status", OutputFormat.JSON)

    assert out.getvalue() == ""
    assert err.getvalue() == "hello\nnext: audit-trail status\n"


def test_progress_without_a_terminal_is_lines() -> None:
    err = io.StringIO()
    with redirect_stderr(err), progress("importing", 3) as done:
        done.advance(3)

    assert err.getvalue().startswith("importing: 3 of 3 in ")
    assert "\x1b" not in err.getvalue()
