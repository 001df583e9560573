"""Checkpoints: what a log was at one moment, in the text that is signed.

Source: C2SP tlog-checkpoint.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass

from pipeline.domain.logs import LogName
from pipeline.domain.merkle import HASH_BYTES

SIZE_MAX = 2**63 - 1


class CheckpointRefused(ValueError):
    """Not a checkpoint. The message says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of one log. ``origin`` names it everywhere and for ever, its epoch included."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """Three lines: origin, size, root in base64. What is signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


def origin_of(prefix: str, name: LogName) -> str:
    """The origin of a log: ``<prefix>/<topic>/<partition>/<epoch>``."""
    return f"{prefix}/{name}"


def log_of(prefix: str, origin: str) -> LogName:
    """Which log of this installation an origin names.

    Raises:
        CheckpointRefused: Another installation's.
    """
    try:
        name = LogName.parse(origin.removeprefix(f"{prefix}/"))
    except ValueError:
        pass
    else:
        if origin_of(prefix, name) == origin:
            return name
    raise CheckpointRefused(f"the origin {origin} is none of {prefix}'s logs")


def parse_checkpoint(text: str) -> Checkpoint:
    """Read back what ``text`` gave. Extension lines are refused: this trail writes none.

    Raises:
        CheckpointRefused: Not a checkpoint.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise CheckpointRefused("a checkpoint is three lines: origin, size, root")
    origin, size, root = lines[:3]
    if not size.isascii() or not size.isdecimal() or str(int(size)) != size:
        raise CheckpointRefused("the size of a checkpoint is a decimal number")
    try:
        decoded = b64decode(root, validate=True)
    except ValueError:
        decoded = b""
    if len(decoded) != HASH_BYTES or int(size) > SIZE_MAX or b64encode(decoded).decode() != root:
        raise CheckpointRefused(f"the root of a checkpoint is base64 of {HASH_BYTES} bytes")
    return Checkpoint(origin, int(size), decoded)
