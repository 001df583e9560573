"""Files of vendors' records, read record by record: JSON Lines, JSON documents, either gzipped.

A damaged line or file gives a refusal with its reason and never stops the rest.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from pipeline.importers.events import Refusal

LINE_MAX_BYTES: Final = 256 * 1024 * 1024  # CloudTrail writes whole files in one line
_GZIP_MAGIC = b"\x1f\x8b"
_JSON_SPACE = b" \t\r\n"


def read_records(path: Path) -> Iterator[dict[str, Any] | Refusal]:
    """Every record of a file, in order; a refusal stands where a record could not be read.

    Understood are: one record per line; one record per line as ``{"log": {...}}``; an array of
    records; CloudTrail's ``{"Records": [...]}``, also as a line.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        with gzip.open(raw) if is_gzip else raw as content:
            try:
                yield from _read(content)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                yield Refusal.FILE_DAMAGED


class _Content(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


def _read(content: _Content) -> Iterator[dict[str, Any] | Refusal]:
    first = content.readline(LINE_MAX_BYTES + 1)
    document = first.lstrip(b"\xef\xbb\xbf" + _JSON_SPACE)
    # A document over several lines begins with a bracket, or with a line that is no JSON by itself.
    if document[:1] == b"[" or (document[:1] == b"{" and isinstance(_parse(document), Refusal)):
        rest = content.read(LINE_MAX_BYTES + 1 - len(document))
        whole = _parse(document + rest)
        if not isinstance(whole, Refusal):
            yield from _records(whole)
            return
        yield from _lines(document, iter((document + rest).splitlines()[1:]))
        return
    yield from _lines(document, iter(lambda: content.readline(LINE_MAX_BYTES + 1), b""))


def _lines(first: bytes, others: Iterator[bytes]) -> Iterator[dict[str, Any] | Refusal]:
    if first.strip(_JSON_SPACE):
        yield from _records(_parse(first.splitlines()[0]))
    for line in others:
        if line.strip(_JSON_SPACE):
            yield from _records(_parse(line))


def _parse(text: bytes) -> Any:
    """The value of a JSON text, or the refusal that says why it has none."""
    if len(text) > LINE_MAX_BYTES:
        return Refusal.TOO_LARGE
    try:
        return json.loads(text.decode("utf-8"))
    except UnicodeDecodeError:
        return Refusal.NOT_UTF8
    except RecursionError:
        return Refusal.TOO_DEEP
    except ValueError:
        return Refusal.NOT_JSON


def _records(value: Any) -> Iterator[dict[str, Any] | Refusal]:
    """The records inside a parsed line or document."""
    if isinstance(value, Refusal):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield part if isinstance(part, dict) else Refusal.NOT_AN_OBJECT
    elif isinstance(value, Mapping) and isinstance(value.get("Records"), list):
        yield from _records(value["Records"])
    elif isinstance(value, Mapping) and isinstance(value.get("log"), dict):
        yield value["log"]
    elif isinstance(value, dict):
        yield value
    else:
        yield Refusal.NOT_AN_OBJECT
