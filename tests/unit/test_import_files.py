"""Files of vendors' records are read in the forms that occur; what is damaged stops nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.importers.catalogue import map_file
from pipeline.importers.events import ImportedEvent, Refusal, Refused


def a_call(**changes: Any) -> dict[str, Any]:
    """The least of a CloudTrail record that is an event."""
    record = {"eventTime": "2024-01-15T10:45:23Z", "eventName": "GetObject", "readOnly": True}
    return {**record, **changes}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


LINE = json.dumps(a_call()).encode()
PRETTY = json.dumps({"Records": [a_call(), a_call(awsRegion="eu-west-1")]}, indent=2).encode()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (LINE, 1),
        (LINE + b"\r\n\r\n" + LINE + b"\n", 2),
        (b'{"source": "x", "log": ' + LINE + b"}\n", 1),
        (b'{"Records": [' + LINE + b"," + LINE + b"]}", 2),
        (PRETTY, 2),
        (b"[" + LINE + b",\n" + LINE + b"]", 2),
        (b"\xef\xbb\xbf" + LINE, 1),
        (gzip.compress(LINE, mtime=0), 1),  # test ids must not depend on the second
        (b"", 0),
    ],
)
def test_files_are_read_in_the_forms_that_occur(tmp_path: Path, content: bytes, found: int) -> None:
    results = list(map_file("aws-cloudtrail", write(tmp_path / "records", content)))

    assert [type(result) for result in results] == [ImportedEvent] * found


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", Refusal.NOT_JSON),
        (b"not json", Refusal.NOT_JSON),
        (b"17", Refusal.NOT_AN_OBJECT),
        (b'{"eventName": "\xff"}', Refusal.NOT_UTF8),
        (b"[" * 100_000, Refusal.TOO_DEEP),
        (b'{"eventTime": "2024-01-15T10:45:23Z", "eventName": "\\ud800"}', Refusal.NO_ACTION),
        (b"{}", Refusal.NO_TIME),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_bad_line_is_refused_and_the_others_are_read(
    tmp_path: Path, bad: bytes, reason: Refusal, *, is_first: bool
) -> None:
    lines = [bad, LINE] if is_first else [LINE, bad]

    results = list(map_file("aws-cloudtrail", write(tmp_path / "records", b"\n".join(lines))))

    refused = [result for result in results if isinstance(result, Refused)]
    assert [result.reason for result in refused] == [reason]
    assert len(results) == 2


def test_a_cut_gzip_file_gives_what_it_holds_and_says_so(tmp_path: Path) -> None:
    lines = b"\n".join(json.dumps(a_call(requestID=str(n))).encode() for n in range(500))
    cut = gzip.compress(lines)[:-200]

    results = list(map_file("aws-cloudtrail", write(tmp_path / "records.gz", cut)))

    assert isinstance(results[0], ImportedEvent)
    assert isinstance(results[-1], Refused)
    assert results[-1].reason in (Refusal.FILE_DAMAGED, Refusal.NOT_JSON)
