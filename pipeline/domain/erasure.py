"""Erasure of a person: its steps, the command that orders it, and what its leaf commits to.

A person is known here by keyed hashes alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Final
from uuid import UUID

SUBJECTS_MAX: Final = 64  # identifiers of one person; the schema holds a request to it, too
REASON_MAX_CHARS: Final = 200
OPERATION: Final = "erasure"
ACTION_ORDERED: Final = "subject.erase"
ACTION_DONE: Final = "subject.erased"
# Kinds of the resources that the trail's own event about a request names.
SUBJECTS: Final = "erasure-subjects"
LEAVES: Final = "erasure-leaves"
REFS: Final = "erasure-refs"  # of the second event alone


class State(StrEnum):
    """Where a request stands."""

    REQUESTED = "requested"
    APPROVED = "approved"
    RUNNING = "running"
    INACCESSIBLE = "inaccessible"
    COMPLETE = "complete"
    WITHDRAWN = "withdrawn"


class Step(StrEnum):
    """The steps of an erasure, in order. Each may be done again; a crash goes on with the first that is
    not noted as done.
    """

    LEAF = "leaf"  # the trail's own leaf names the request, in the ledger
    ORDERED = "ordered"  # the command is in the topic
    KEYS = "keys"  # destroyed in the database: the request has its epoch
    TOMBSTONE = "tombstone"  # the command says when
    LEASES = "leases"  # no worker holds a key of the person
    ESCROW = "escrow"  # the vault's copies are gone
    JOURNAL = "journal"  # and the topic's
    HEADS = "heads"  # noted: whatever follows was sealed after the erasure
    FOLLOWERS = "followers"  # index and archive are past them
    LEAVES = "leaves"  # the affected ones are known, and a second leaf commits to them
    INDEX = "index"  # their documents are as catch-up would build them
    LETTERS = "letters"  # keys of dead letters that name the person are destroyed
    TOPICS = "topics"  # raw records that the archive has are deleted
    CERTIFIED = "certified"
    SETTLED = "settled"  # deleted documents are off the disks, and all of the vault was searched


# ``SETTLED`` is done by a later run.
FIRST_RUN: Final = tuple(step for step in Step if step is not Step.SETTLED)


@dataclass(frozen=True, slots=True)
class LeafPlace:
    """One leaf of the trail: log name and index."""

    log: str
    leaf_index: int


@dataclass(frozen=True, slots=True)
class RedactionCommand:
    """See ``avro_schemas/commands/RedactionCommand.avsc``; times in µs."""

    request_id: UUID
    tenant: str
    id_types: tuple[str, ...]
    subject_hashes: tuple[bytes, ...]
    ordered_at_us: int
    erased_at_us: int | None
    leaf: LeafPlace
    # "topic/partition" → offset below which its records were deleted.
    deleted_below: Mapping[str, int] = field(default_factory=dict)
    subject_refs: tuple[UUID, ...] = ()  # whose keys were destroyed
    raw_key_hashes: tuple[bytes, ...] = ()


def subjects_digest(hashes: Iterable[bytes]) -> bytes:
    """What the leaf says of whom it is about: SHA-256 of the keyed hashes, sorted.

    So that a command cannot name other people under a request that the trail has a leaf of.
    """
    return sha256(b"".join(sorted(hashes))).digest()


def refs_digest(refs: Iterable[UUID]) -> bytes:
    """What the second leaf says of whose keys are gone: SHA-256 of the subjects' references, sorted.

    So that nobody adds another person to a request that affects leaves which both of them are in.
    """
    return sha256(b"".join(sorted({ref.bytes for ref in refs}))).digest()


def first_open(done: Iterable[str], steps: Sequence[Step] = tuple(Step)) -> Step | None:
    """The first step that is not done; None: all are."""
    known = set(done)
    return next((step for step in steps if step not in known), None)
