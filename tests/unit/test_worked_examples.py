"""RFC.md's worked examples of the archive, a dead letter and an imported event's id are true."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from pipeline.codec.dead_letter_format import ORIGINAL, seal_dead_letter
from pipeline.domain.errors import Reason
from pipeline.domain.merkle import leaf_hash
from pipeline.domain.records import DeadLetter, Record, SealedBlob, SealedEvent
from pipeline.importers.assembly import event_id
from sinks import archive_format, ocf

TEXT = (Path(__file__).parents[2] / "RFC.md").read_text(encoding="utf-8")
SPEC = "".join(TEXT.split())  # bytes are shown over several lines
LINES = TEXT.splitlines()


def the_event() -> SealedEvent:
    """Section 3.4's, as leaf 0 of its log."""
    canonical = next(line for line in LINES if line.startswith('{"clear":{"action"')).encode()
    ciphertext = next(line for line in LINES if line.startswith("ciphertext ")).split()[1]
    ref = UUID("0b9d6c54-7c0e-4f2e-9c51-3f1f3a6a1d10").bytes
    return SealedEvent(
        event_id=UUID("01939c1e-5a00-7000-8000-00000000002a").bytes,
        family="authentication",
        occurred_at_us=1_764_000_000_000_000,
        offset=41,
        broker_timestamp_ms=1_764_000_000_500,
        schema_id=7,
        clear={},
        opened={},
        canonical=canonical,
        leaf_hash=leaf_hash(canonical),
        blobs=(SealedBlob(ref, bytes(range(12)), bytes.fromhex(ciphertext)),),
        actor_ref=ref,
        stored_at_us=1_764_000_001_000_000,
    )


def archive_examples() -> list[str]:
    event = the_event()
    leaf = b"".join(archive_format.leaf_datums([event], 0))
    blob = b"".join(archive_format.blob_datums([event], 0).pieces)
    key = next(line for line in LINES if line.startswith("archive key")).split()[-1]
    return [leaf.removesuffix(event.canonical).hex(), blob.hex(), ocf.sync_marker(key).hex()]


def letter_examples() -> list[str]:
    record: Any = SimpleNamespace(
        offset=41, timestamp=1_764_000_000_500, key=b"acme/u-1001", value=b"abc", headers=[]
    )
    letter = seal_dead_letter(
        DeadLetter("audit.raw.authentication", 0, cast("Record", record), Reason.WRONG_MAGIC, "x"),
        bytes(range(32)),
        random_bytes=lambda count: bytes(range(count)),
    )
    return [letter.key.decode(), letter.value.hex(), dict(letter.headers)[ORIGINAL].hex()]


def import_examples() -> list[str]:
    return [event_id("okta", {"uuid": "x", "eventType": "user.session.start"})]


@pytest.mark.parametrize("examples", [archive_examples, letter_examples, import_examples])
def test_what_the_specification_shows_is_what_the_code_gives(examples: Any) -> None:
    for shown in examples():
        assert shown in SPEC, shown
