"""Signs one log as far as ledger and archive have it, or refuses.

Guarantees that no two checkpoints are ever given out for a log of which one does not lead to the
other, whatever happens to the database and however many signers run:

1. What was signed before is read from the archive bucket, and its root is found again in the tiles.
2. The ledger's leaves are added to that; what comes out must be the ledger's own head.
3. The new note is published in the place of exactly the one that was read (If-Match). Of two signers
   that read the same one, be it over two databases, one is first and the other looks again.
4. It is stored under lock on the condition that there is none of that size. A crash in between leaves a
   published note, which the next run stores before it signs anything.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pipeline.compliance.checkpoint_store import (
    CheckpointObjects,
    CheckpointTable,
    Published,
    SignedCheckpoint,
    read_signed,
    verifying,
)
from pipeline.compliance.signer_ledger import SignableHead, SignerLedger
from pipeline.compliance.tile_store import Growth, TileReader, TileRefused, TileStore
from pipeline.compliance.witnesses import Witnesses
from pipeline.domain.checkpoints import Checkpoint, CheckpointRefused, origin_of
from pipeline.domain.errors import ChainBroken
from pipeline.domain.merkle import Frontier
from pipeline.domain.notes import Note, NoteRefused, VerifierKey
from pipeline.keys.note_keys import NoteSigner, sign_note
from pipeline.logging import log_event
from sinks.s3 import Lock

log = logging.getLogger(__name__)

RUNBOOK = "see docs/runbooks/refused-log.md"


class Outcome(StrEnum):
    """What a round did with a log."""

    CURRENT = "current"  # the newest checkpoint covers all that may be signed
    SIGNED = "signed"
    OVERTAKEN = "overtaken"  # another signer was first: look again


@dataclass(frozen=True, slots=True)
class SignedState:
    """Where a log is after a round: ``size`` leaves of ``head`` are under a checkpoint."""

    outcome: Outcome
    head: SignableHead
    size: int


@dataclass(frozen=True, slots=True)
class RoundKeys:
    """The keys of one round: those that sign, and all whose signatures count."""

    signers: Sequence[NoteSigner]
    trusted: Sequence[VerifierKey]


@dataclass(frozen=True, slots=True)
class _Before:
    """What was signed until now: under lock, and published without being under lock yet."""

    stored: SignedCheckpoint | None
    pending: SignedCheckpoint | None
    published: Published | None

    @property
    def size(self) -> int:
        """Of what is under lock."""
        return self.stored.size if self.stored else 0


class LogSigner:
    """Signs any log; what it holds belongs to whoever made it."""

    def __init__(
        self,
        ledger: SignerLedger,
        table: CheckpointTable,
        objects: CheckpointObjects,
        tiles: TileStore,
        witnesses: Witnesses,
        *,
        origin_prefix: str,
        now: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._table = table
        self._objects = objects
        self._tiles = tiles
        self._witnesses = witnesses
        self._origin_prefix = origin_prefix
        self._now = now

    async def sign(self, seen: SignableHead, keys: RoundKeys, lock: Lock) -> SignedState:
        """Give a log a checkpoint, if it has leaves that none covers. Everything is durable on return.

        Raises:
            ChainBroken: The head does not follow from what was signed: nothing was signed now.
            Unavailable: Call again later.
        """
        before = await self._before(seen, keys)
        # After the checkpoints, or another signer's newer one would look like a log that shrank.
        head = await self._ledger.head(seen.log_id)
        newest = before.pending or before.stored
        if newest is not None and head.size < newest.size:
            raise ChainBroken(
                str(head.name),
                f"{newest.size} leaves are signed, the ledger has {head.size}: was the database"
                f" rolled back? {RUNBOOK}",
            )
        edge = await self._edge(head, before.stored)
        target = min(max(head.archived, before.size), head.size)
        if before.pending is not None:
            target = before.pending.size
        root = await self._proven_root(head, edge, target, before.pending)
        if target == before.size:
            return SignedState(Outcome.CURRENT, head, target)
        await self._tiles.write_growth(
            head.name, edge, self._ledger.leaf_hashes(head, edge.size, target)
        )
        if edge.frontier().root() != root:
            raise ChainBroken(str(head.name), f"its leaves changed while they were read: {RUNBOOK}")
        return await self._give_out(head, before, keys, lock, target, root)

    async def _give_out(
        self,
        head: SignableHead,
        before: _Before,
        keys: RoundKeys,
        lock: Lock,
        size: int,
        root: bytes,
    ) -> SignedState:
        signed_at = self._now()
        if before.pending is not None:
            checkpoint, note = before.pending.checkpoint, before.pending.note
        else:
            checkpoint = Checkpoint(origin_of(self._origin_prefix, head.name), size, root)
            note = sign_note(checkpoint.text, keys.signers)
            if not await self._objects.publish(
                head.name, note.encode(), instead_of=before.published
            ):
                return SignedState(Outcome.OVERTAKEN, head, before.size)
        reader = TileReader(self._tiles, head.name)
        cosignatures = await self._witnesses.cosign(
            checkpoint, note, lambda old: reader.consistency(old, size), old_size=before.size
        )
        cosigned = Note(note.text, (*note.signatures, *cosignatures))
        stored = await self._objects.put(head.name, size, cosigned.encode(), lock)
        final = verifying(keys.trusted, origin_prefix=self._origin_prefix)(stored)
        if final.root != root:
            raise ChainBroken(
                str(head.name),
                f"another root of {size} leaves is signed in {stored.key}: {RUNBOOK}",
            )
        await self._table.insert(head.log_id, head.name, checkpoint, stored.encoded, signed_at)
        if stored.encoded != note.encode():
            await self._publish_cosigned(final, note, stored.encoded)
        log_event(
            log,
            "checkpoint_signed",
            log=str(head.name),
            leaves=size,
            keys=len(final.signers),
            cosignatures=len(final.note.signatures) - len(final.signers),
        )
        return SignedState(Outcome.SIGNED, head, size)

    async def _publish_cosigned(self, final: SignedCheckpoint, note: Note, encoded: bytes) -> None:
        """Serve the cosignatures too, unless a newer note is served already."""
        published = await self._objects.published(final.name)
        if published is not None and published.encoded == note.encode():
            await self._objects.publish(final.name, encoded, instead_of=published)

    async def _before(self, head: SignableHead, keys: RoundKeys) -> _Before:
        """What was signed; rows that the table lacks are added to it, in the order of their sizes."""
        verified = verifying(keys.trusted, origin_prefix=self._origin_prefix)
        row = await self._table.newest(head.log_id)
        known = row.size if row else 0
        found = await self._objects.newest(head.name, known_size=known)
        stored = verified(found) if found else None
        if stored is not None and row is not None and stored.size == row.size:
            if stored.root != row.root:
                raise ChainBroken(
                    str(head.name),
                    f"the table checkpoints has another root of size {row.size} than"
                    f" the archive bucket: {RUNBOOK}",
                )
        elif stored is not None:
            await self._take_over(head, known, verified)
        published = await self._objects.published(head.name)
        pending = self._pending(head, published, keys, stored.size if stored else 0)
        return _Before(stored, pending, published)

    async def _take_over(
        self, head: SignableHead, known: int, verified: Callable[..., SignedCheckpoint]
    ) -> None:
        rows = 0
        async for note in self._objects.all(head.name, from_size=known + 1):
            checkpoint = verified(note).checkpoint
            await self._table.insert(head.log_id, head.name, checkpoint, note.encoded, self._now())
            rows += 1
        log_event(log, "checkpoints_taken_over", log=str(head.name), checkpoints=rows)

    def _pending(
        self, head: SignableHead, published: Published | None, keys: RoundKeys, size: int
    ) -> SignedCheckpoint | None:
        """A note that was given out and is not under lock: its signer crashed in between, or works on it."""
        if published is None:
            return None
        try:
            found = read_signed(
                head.name, published.encoded, keys.trusted, origin_prefix=self._origin_prefix
            )
        except (NoteRefused, CheckpointRefused) as error:
            # Not under lock, so anybody with access to the bucket may have put it: it is replaced.
            log_event(
                log,
                "published_note_unusable",
                level=logging.ERROR,
                log=str(head.name),
                why=str(error),
            )
            return None
        return found if found.size > size else None

    async def _edge(self, head: SignableHead, stored: SignedCheckpoint | None) -> Growth:
        """The right edge of the tiles at the checkpoint, proven by its root; made again from the ledger's
        leaves if it is missing or differs.
        """
        if stored is None:
            return Growth()
        try:
            edge = await self._tiles.edge(head.name, stored.size)
            if edge.frontier().root() == stored.root:
                return edge
            why = "they do not give the signed root"
        except TileRefused as error:
            why = str(error)
        log_event(log, "tiles_made_again", level=logging.ERROR, log=str(head.name), why=why)
        frontier = await _grown(Frontier(), self._ledger.leaf_hashes(head, 0, stored.size))
        if frontier.root() != stored.root:
            raise ChainBroken(
                str(head.name),
                f"the ledger's first {stored.size} leaves do not give the root that was signed:"
                f" {RUNBOOK}",
            )
        edge = Growth()
        await self._tiles.write_growth(
            head.name, edge, self._ledger.leaf_hashes(head, 0, stored.size)
        )
        return edge

    async def _proven_root(
        self, head: SignableHead, edge: Growth, target: int, pending: SignedCheckpoint | None
    ) -> bytes:
        """The root at ``target``, once it is shown that the ledger's head follows from the edge.

        All leaves up to the head are read, beyond the target too: a checkpoint of a part of a log is of
        no use if the rest of it was made up.
        """
        frontier = await _grown(edge.frontier(), self._ledger.leaf_hashes(head, edge.size, target))
        root = frontier.root()
        if pending is not None and root != pending.root:
            raise ChainBroken(
                str(head.name),
                f"another root of {pending.size} leaves was published and is signed: does another"
                f" database have this log? {RUNBOOK}",
            )
        whole = await _grown(frontier, self._ledger.leaf_hashes(head, target, head.size))
        if whole.root() != head.root:
            raise ChainBroken(
                str(head.name),
                f"the ledger's head of {head.size} leaves does not follow from the checkpoint of"
                f" {edge.size} leaves and the leaves since: {RUNBOOK}",
            )
        return root


async def _grown(frontier: Frontier, pages: AsyncIterator[list[bytes]]) -> Frontier:
    async for leaves in pages:
        frontier = frontier.append(leaves)
    return frontier
