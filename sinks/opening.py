"""Opening the blobs of leaves that were read back from the ledger, for destinations that need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pipeline.domain.errors import ChainBroken
from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange, SealedEvent
from pipeline.keys.seal import open_blob
from pipeline.keys.subjects import SubjectKey, SubjectKeys


class BlobOpener:
    """Fills ``opened`` of a range; values of a subject whose key is gone are left out."""

    def __init__(self, keys: SubjectKeys) -> None:
        self._keys = keys

    async def __call__(self, leaves: LeafRange) -> LeafRange:
        """The same leaves with their values.

        Raises:
            ChainBroken: A blob does not open under its subject's key.
            Unavailable: The database does not answer; ask again later.
        """
        await self.open_some(leaves.name, list(enumerate(leaves.events, leaves.first_leaf)))
        return leaves

    async def open_some(self, name: LogName, leaves: Sequence[tuple[int, SealedEvent]]) -> None:
        """Leaves here and there, each with its index; raises as a call does."""
        refs = {UUID(bytes=blob.subject_ref) for _leaf, event in leaves for blob in event.blobs}
        keys = await self._keys.by_ref(refs) if refs else {}
        by_bytes = {ref.bytes: key for ref, key in keys.items()}
        for index, event in leaves:
            event.opened = self._open(name, index, event, by_bytes)

    @staticmethod
    def _open(
        name: LogName, index: int, event: SealedEvent, keys: dict[bytes, SubjectKey]
    ) -> dict[str, Any]:
        opened: dict[str, Any] = {}
        for blob in event.blobs:
            key = keys.get(blob.subject_ref)
            if key is None:
                continue
            try:
                opened.update(open_blob(key, event.event_id, blob))
            except ValueError as error:
                raise ChainBroken(
                    str(name), f"leaf {index}: {error}; it was changed in the database"
                ) from None
        return opened
