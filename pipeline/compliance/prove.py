"""The proof that one event is in the trail, for whoever has the log's key and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from pipeline.compliance.export import newest_checkpoint
from pipeline.compliance.export_read import ExportReader
from pipeline.compliance.subtrees import Subtrees
from pipeline.compliance.tile_store import TileReader
from pipeline.domain.errors import AuditTrailError, ChainBroken
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import leaf_hash
from pipeline.domain.notes import VerifierKey
from pipeline.domain.proofs import ProofRefused, inclusion_subtrees, verify_inclusion
from pipeline.domain.tlog_proof import TlogProof


class NotProven(AuditTrailError):
    """There is no such event, or no checkpoint covers it yet. The message says what to do."""


@dataclass(frozen=True, slots=True)
class EventProof:
    """A proof that was verified. ``canonical`` is None where the event expired: its leaf stays."""

    log: LogName
    leaf_index: int
    size: int
    proof: TlogProof
    canonical: bytes | None


async def prove_event(
    reader: ExportReader,
    tiles: Callable[[LogName], TileReader | None],
    event_id: UUID,
    *,
    keys: Sequence[VerifierKey],
    origin: str,
    interval_s: float,
) -> EventProof:
    """The inclusion proof of an event under the newest checkpoint of its log.

    Raises:
        NotProven: No such event, or none that a checkpoint covers; says when the next one is due.
        ChainBroken: The leaf is not in the log that was signed, or the event's row is not the leaf's.
        Unavailable: Ask again later.
    """
    place = await reader.place(event_id)
    if place is None:
        raise NotProven(f"the ledger has no event {event_id}; is it a dead letter?")
    log_id, name, leaf = place
    found = await newest_checkpoint(reader, log_id, name, keys, origin)
    if found is None or found[0].size <= leaf:
        covered = "none yet" if found is None else f"of {found[0].size} leaves"
        raise NotProven(
            f"leaf {leaf} of {name} is under no checkpoint (the newest: {covered}); while a signer"
            f" runs the next one is due within {interval_s:.0f} s (AUDIT_SIGNER_INTERVAL_S)"
        )
    signed, note = found
    (hashed,) = await reader.leaf_hashes(log_id, leaf, leaf + 1)
    canonical = await reader.canonical(log_id, leaf)
    if canonical is not None and leaf_hash(canonical) != hashed:
        raise ChainBroken(str(name), f"leaf {leaf}: its row in audit_logs is not what was hashed")
    path = inclusion_subtrees(leaf, signed.size)
    refused: ProofRefused | None = None
    # Tiles carry no lock: where they lead elsewhere, the leaves decide.
    for source in (tiles(name), None):
        hashes = await Subtrees(source, reader, log_id, signed.size).roots(path)
        try:
            verify_inclusion(hashed, leaf, signed.size, signed.root, hashes)
        except ProofRefused as error:
            refused = error
            continue
        proof = TlogProof(leaf, tuple(hashes), note)
        return EventProof(name, leaf, signed.size, proof, canonical)
    raise ChainBroken(str(name), f"{refused}; run: audit-trail verify --log {name}")
