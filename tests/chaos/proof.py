"""The proof after a fault: nothing lost, nothing twice, order kept, roots and intake right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.domain.merkle import leaf_hash, merkle_root
from pipeline.entrypoints.cli.compare import Verified, compare_stores
from pipeline.settings import Settings
from tests.chaos.load import Load, connect

Place = tuple[str, int]  # log name and leaf index

_VERIFIED: dict[tuple[str | None, str], Verified] = {}


def prove(settings: Settings, load: Load) -> None:
    """Every store holds what was before and what was published, and nothing became a dead letter."""
    _compare(settings, load.ids_file, load.before)
    prove_logs(settings)


def prove_together(settings: Settings, loads: Sequence[Load], file: Path) -> None:
    """The same over several loads; ``file`` is written. The first one's ``before`` counts."""
    file.write_bytes(b"".join(load.ids_file.read_bytes() for load in loads))
    _compare(settings, file, loads[0].before)
    prove_logs(settings)


def _compare(settings: Settings, ids_file: Path, before: frozenset[bytes]) -> None:
    # Most objects of the session were verified after the faults before: reading all of them again
    # took longer than the faults.
    verified = _VERIFIED.setdefault((settings.s3_endpoint_url, settings.s3_archive_bucket), {})
    comparison = compare_stores(settings, ids_file, before=before, verified=verified)
    assert comparison.equal, comparison.as_dict()
    assert not comparison.reasons


def prove_logs(settings: Settings) -> None:
    """Each log is one unbroken sequence of leaves and of offsets, under its root."""
    with connect(settings) as connection:
        heads = connection.execute(
            "SELECT log_id, name, size, next_offset, root FROM log_heads"
        ).fetchall()
        for log_id, name, size, next_offset, root in heads:
            leaves = connection.execute(
                "SELECT l.leaf_index, l.leaf_hash, a.source_offset, a.event::text FROM leaves l"
                " JOIN audit_logs a USING (log_id, leaf_index, occurred_at)"
                " WHERE log_id = %s ORDER BY leaf_index",
                [log_id],
            ).fetchall()
            intake = connection.execute(
                "SELECT first_offset, next_offset, first_leaf, accepted FROM intake"
                " WHERE log_id = %s ORDER BY first_offset",
                [log_id],
            ).fetchall()
            _prove_leaves(name, size, bytes(root), leaves)
            _prove_intake(name, size, next_offset, intake)


def _prove_leaves(name: str, size: int, root: bytes, leaves: Sequence[Any]) -> None:
    assert [leaf[0] for leaf in leaves] == list(range(size)), f"{name}: a leaf is missing"
    offsets = [leaf[2] for leaf in leaves]
    assert all(one < two for one, two in pairwise(offsets)), f"{name}: out of order"
    hashes = [leaf_hash(leaf[3].encode()) for leaf in leaves]
    assert hashes == [bytes(leaf[1]) for leaf in leaves], f"{name}: a leaf is not its event's"
    assert merkle_root(hashes) == root, f"{name}: not the root of its leaves"


def _prove_intake(name: str, size: int, next_offset: int, intake: Sequence[Any]) -> None:
    for (_first, end, leaf, accepted), (first, _end, next_leaf, _accepted) in pairwise(intake):
        assert end == first, f"{name}: intake ranges do not abut"
        assert leaf + accepted == next_leaf, f"{name}: leaves of intake ranges do not abut"
    assert sum(row[3] for row in intake) == size, f"{name}: intake and leaves disagree"
    assert not intake or intake[-1][1] == next_offset, f"{name}: intake ends before the head"


def leaf_hashes(settings: Settings) -> dict[Place, bytes]:
    """Every leaf's hash."""
    with connect(settings) as connection:
        rows = connection.execute(
            "SELECT name, leaf_index, leaf_hash FROM leaves JOIN log_heads USING (log_id)"
        ).fetchall()
    return {(name, index): bytes(found) for name, index, found in rows}


def archived(settings: Settings) -> dict[Place, tuple[Any, ...]]:
    """All that the ledger has beside each leaf which the archive holds too; blobs as well."""
    with connect(settings) as connection:
        rows = connection.execute(
            "SELECT name, leaf_index, a.event::text, a.stored_at, a.source_offset, a.schema_id,"
            "  a.broker_timestamp, (SELECT array_agg(b.ciphertext ORDER BY b.subject_ref)"
            "    FROM audit_blobs b WHERE (b.log_id, b.leaf_index, b.occurred_at)"
            "      = (a.log_id, a.leaf_index, a.occurred_at))"
            " FROM audit_logs a JOIN log_heads USING (log_id)"
            " JOIN follower_position f USING (log_id)"
            " WHERE f.follower = 'archive' AND leaf_index < f.next_leaf"
        ).fetchall()
    return {(name, index): tuple(facts) for name, index, *facts in rows}
