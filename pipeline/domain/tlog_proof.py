"""Proofs as files: that one leaf is in a log, for whoever has the log's key and no access to it.

Source: C2SP tlog-proof.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass

from pipeline.domain.merkle import HASH_BYTES
from pipeline.domain.notes import NOTE_MAX_BYTES
from pipeline.domain.proofs import PROOF_MAX

HEADER = "c2sp.org/tlog-proof@v1"
SUFFIX = ".tlog-proof"
INDEX_MAX = 2**64 - 1
EXTRA_MAX_BYTES = 1024 * 1024  # an event's canonical bytes, far above the largest


class TlogProofRefused(ValueError):
    """Not a proof file. The message says which line."""


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Leaf ``index`` of the log that ``checkpoint`` (a signed note, verbatim) is of; ``hashes`` from the
    leaf's sibling up. ``extra`` is authenticated by nothing.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """The file."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines += [b64encode(node).decode() for node in self.hashes]
        return "\n".join([*lines, "", ""]).encode() + self.checkpoint


def parse_tlog_proof(encoded: bytes) -> TlogProof:
    """Read back what ``encode`` gave; nothing of it is verified.

    Raises:
        TlogProofRefused: Not such a file, or another way to write one.
    """
    head, blank, checkpoint = encoded.partition(b"\n\n")
    if len(head) > 2 * EXTRA_MAX_BYTES or len(checkpoint) > NOTE_MAX_BYTES:
        raise TlogProofRefused("the proof is too long")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise TlogProofRefused("a proof is ASCII down to its checkpoint") from None
    if lines[0] != HEADER:
        raise TlogProofRefused(f"the first line of a proof is {HEADER}")
    if not blank or not checkpoint:
        raise TlogProofRefused("a proof ends with an empty line and a checkpoint")
    rest = lines[1:]
    extra = None
    if rest and rest[0].startswith("extra "):
        extra = _decoded(rest.pop(0).removeprefix("extra "), "the extra line")
    if not rest or not rest[0].startswith("index "):
        raise TlogProofRefused("the line before the hashes is: index <number>")
    number = rest.pop(0).removeprefix("index ")
    if not number.isdecimal() or str(int(number)) != number or int(number) > INDEX_MAX:
        raise TlogProofRefused("the index of a proof is a decimal number")
    hashes = tuple(_decoded(line, "a hash") for line in rest)
    if len(hashes) > PROOF_MAX or any(len(node) != HASH_BYTES for node in hashes):
        raise TlogProofRefused(f"a proof has at most {PROOF_MAX} hashes of {HASH_BYTES} bytes")
    return TlogProof(int(number), hashes, checkpoint, extra)


def _decoded(text: str, what: str) -> bytes:
    """Base64 in its one canonical form (RFC 4648 §3.5)."""
    try:
        decoded = b64decode(text, validate=True)
    except ValueError:
        decoded = b""
    if b64encode(decoded).decode() != text:
        raise TlogProofRefused(f"{what} is not canonical base64")
    return decoded
