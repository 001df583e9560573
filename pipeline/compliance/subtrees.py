"""Roots of subtrees of a log: from its tiles, and from its leaves where a tile is missing."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.compliance.export_read import ExportReader
from pipeline.compliance.tile_store import TileReader, TileRefused
from pipeline.domain.merkle import Frontier
from pipeline.domain.proofs import Subtree, SubtreeRoot, root_over

_PAGE_LEAVES = 10_000


class Subtrees:
    """Over one log of ``size`` leaves. What it gives is proven by nothing yet: the root is.

    Without ``tiles`` all comes from the leaves, which takes time in proportion to what is proven.
    """

    def __init__(
        self, tiles: TileReader | None, ledger: ExportReader, log_id: int, size: int
    ) -> None:
        self._tiles = tiles
        self._ledger = ledger
        self._log_id = log_id
        self._size = size

    async def roots(self, groups: Sequence[Sequence[Subtree]]) -> list[bytes]:
        """The root over each list of consecutive perfect subtrees. Raises ``Unavailable``."""
        if not groups:
            return []
        read = await self._reader([one for group in groups for one in group])
        return [root_over(group, read) for group in groups]

    async def _reader(self, wanted: Sequence[Subtree]) -> SubtreeRoot:
        if self._tiles is not None:
            try:
                return await self._tiles.subtree_roots(wanted, self._size)
            except TileRefused:  # they follow from the leaves, and nobody promised to keep them
                pass
        found = {subtree: await self._from_leaves(*subtree) for subtree in wanted}
        return lambda level, index: found[level, index]

    async def _from_leaves(self, level: int, index: int) -> bytes:
        frontier = Frontier()
        first, end = index << level, (index + 1) << level
        while first < end:
            hashes = await self._ledger.leaf_hashes(
                self._log_id, first, min(first + _PAGE_LEAVES, end)
            )
            if not hashes:
                break  # the root will not be the one that was signed
            frontier = frontier.append(hashes)
            first += len(hashes)
        return frontier.root()
