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
# Per log: the leaf hashes that were recomputed from their events, and the last one's offset. Most
# events of the session were proved after the faults before: doing it again took longer than the faults.
_PROVED: dict[str, tuple[list[bytes], int]] = {}


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
            held = connection.execute(
                "SELECT leaf_index, leaf_hash FROM leaves WHERE log_id = %s ORDER BY leaf_index",
                [log_id],
                binary=True,
            ).fetchall()
            proved, last_offset = _PROVED.get(name, ([], -1))
            if size < len(proved):  # rolled back
                proved, last_offset = [], -1
            rows = connection.execute(
                "SELECT leaf_index, source_offset, event::text FROM audit_logs"
                " WHERE log_id = %s AND leaf_index >= %s ORDER BY leaf_index",
                [log_id, len(proved)],
            ).fetchall()
            intake = connection.execute(
                "SELECT first_offset, next_offset, first_leaf, accepted FROM intake"
                " WHERE log_id = %s ORDER BY first_offset",
                [log_id],
            ).fetchall()
            hashes = _prove_leaves(name, size, held, rows, proved, last_offset)
            assert merkle_root(hashes) == bytes(root), f"{name}: not the root of its leaves"
            _PROVED[name] = (hashes, rows[-1][1] if rows else last_offset)
            _prove_intake(name, size, next_offset, intake)


def _prove_leaves(
    name: str,
    size: int,
    held: Sequence[Any],
    rows: Sequence[Any],
    proved: list[bytes],
    last_offset: int,
) -> list[bytes]:
    """The hashes of all leaves. ``held``: (index, hash) of each; ``rows``: (index, offset, event) of
    those that were not ``proved`` before.
    """
    assert [leaf for leaf, _hash in held] == list(range(size)), f"{name}: a leaf is missing"
    assert [row[0] for row in rows] == list(range(len(proved), size)), f"{name}: a row is missing"
    offsets = [last_offset, *(row[1] for row in rows)]
    assert all(one < two for one, two in pairwise(offsets)), f"{name}: out of order"
    hashes = proved + [leaf_hash(row[2].encode()) for row in rows]
    assert hashes == [leaf for _index, leaf in held], f"{name}: a leaf is not its event's"
    return hashes


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
            "SELECT name, leaf_index, sha256(convert_to(a.event::text, 'UTF8')), a.stored_at,"
            "  a.source_offset, a.schema_id, a.broker_timestamp,"
            "  (SELECT sha256(string_agg(b.nonce || b.ciphertext, ''::bytea ORDER BY b.subject_ref))"
            "    FROM audit_blobs b WHERE (b.log_id, b.leaf_index, b.occurred_at)"
            "      = (a.log_id, a.leaf_index, a.occurred_at))"
            " FROM audit_logs a JOIN log_heads USING (log_id)"
            " JOIN follower_position f USING (log_id)"
            " WHERE f.follower = 'archive' AND leaf_index < f.next_leaf"
        ).fetchall()
    return {(name, index): tuple(facts) for name, index, *facts in rows}
