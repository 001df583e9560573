"""What was published: event ids and the positions that the brokers gave them, kept in a file.

One line per record: event id, tab, topic:partition:offset. Lines are added, so that several
imports can share a file; ``compare`` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from uuid import UUID

from pipeline.codec.dead_letter_format import LetterId
from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.publishing import Delivered

Published = tuple[UUID, LetterId]


class IdsFile:
    """Writes a line once the broker has acknowledged the record."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file
        self.acknowledged = 0

    def noting(self, event_id: str) -> Delivered:
        """The delivery report of one event."""

        def delivered(topic: str, partition: int, offset: int) -> None:
            self.acknowledged += 1
            if self._file is not None:
                self._file.write(f"{event_id}\t{topic}:{partition}:{offset}\n")

        return delivered


@contextmanager
def ids_file(path: Path | None) -> Iterator[IdsFile]:
    """The file to add to; without a path acknowledgements are only counted.

    Raises:
        ConfigurationError: The file cannot be written.

    """
    if path is None:
        yield IdsFile(None)
        return
    try:
        file = path.open("a", encoding="ascii")
    except OSError as error:
        raise ConfigurationError(f"--ids-file {path}: {error.strerror}") from error
    with file:
        yield IdsFile(file)


def read_published(path: Path) -> Iterator[Published]:
    """Every line of a file.

    Raises:
        ConfigurationError: A line is not of this form.

    """
    with path.open(encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            event_id, _, position = line.rstrip("\n").partition("\t")
            try:
                yield UUID(event_id), LetterId.parse(position)
            except ValueError:
                raise ConfigurationError(
                    f"{path}:{number} is not `event id<TAB>topic:partition:offset`"
                ) from None
