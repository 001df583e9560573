"""Opening the values of exported events, with what an auditor needs to check them and no more.

Given are the values and Ke, which is of one event and one subject (RFC.md §3.2). Ke is given only
where every value that it commits to is given, too: a value that was cut out, a card number say, could
be guessed by whoever holds Ke and the commitment.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from uuid import UUID

from pipeline.compliance.export_read import ExportedEvent, ExportReader
from pipeline.domain.errors import ChainBroken
from pipeline.domain.logs import LogName
from pipeline.domain.records import SealedBlob
from pipeline.keys.seal import commitment, open_blob
from pipeline.keys.subjects import SubjectKey, SubjectKeys

KEY_GONE, VALUES_GONE, NOT_ASKED = "key_gone", "values_gone", "not_asked"

Opened = Mapping[str, Any]  # subject → {"event_key": base64, "values": {path: value}}


class ExportOpener:
    """Opens pages of events. ``reader`` is of a role that may read blobs, ``keys`` of one that may have
    keys. ``withheld`` counts what was not given, by why, in subjects of events; ``values`` what was.
    """

    def __init__(self, reader: ExportReader, keys: SubjectKeys) -> None:
        self._reader = reader
        self._keys = keys
        self.values = 0
        self.withheld: Counter[str] = Counter()

    async def open(self, log_id: int, name: LogName, page: list[ExportedEvent]) -> list[Opened]:
        """What each event of a page holds, in its order.

        Raises:
            ChainBroken: A blob is not what was sealed.
            Unavailable: Ask again later.
        """
        blobs = await self._reader.blobs(log_id, page)
        refs = {UUID(bytes=blob.subject_ref) for found in blobs.values() for blob in found}
        keys = {ref.bytes: key for ref, key in (await self._keys.by_ref(refs)).items()}
        return [self._event(name, one, blobs.get(one.leaf_index, []), keys) for one in page]

    def _event(
        self,
        name: LogName,
        one: ExportedEvent,
        blobs: list[SealedBlob],
        keys: Mapping[bytes, SubjectKey],
    ) -> Opened:
        by_ref = {blob.subject_ref: blob for blob in blobs}
        opened: dict[str, Any] = {}
        for subject, sealed in one.sealed.items():
            ref = UUID(subject).bytes
            key, blob = keys.get(ref), by_ref.get(ref)
            if key is None:
                self.withheld[KEY_GONE] += 1
                continue
            values = {} if blob is None else self._values(name, one, key, blob, sealed)
            if set(values) != set(sealed):
                self.withheld[VALUES_GONE] += 1
                continue
            event_key = blake2b(one.event.event_id, key=key.commit_key, digest_size=32).digest()
            opened[subject] = {"event_key": b64encode(event_key).decode(), "values": values}
            self.values += len(values)
        return opened

    @staticmethod
    def _values(
        name: LogName,
        one: ExportedEvent,
        key: SubjectKey,
        blob: SealedBlob,
        sealed: Mapping[str, str],
    ) -> dict[str, Any]:
        place = f"leaf {one.leaf_index}"
        event_id = one.event.event_id
        try:
            values = open_blob(key, event_id, blob)
        except ValueError as error:
            raise ChainBroken(str(name), f"{place}: {error}; run: audit-trail verify") from None
        for path, value in values.items():
            committed = b64decode(sealed.get(path, ""))
            if commitment(key, event_id, path, value) != committed:
                raise ChainBroken(
                    str(name), f"{place}: its blob is not what was sealed; run: audit-trail verify"
                )
        return values


class NoOpener:
    """Opens nothing, and counts what it does not."""

    def __init__(self) -> None:
        self.values = 0
        self.withheld: Counter[str] = Counter()

    async def open(self, log_id: int, name: LogName, page: list[ExportedEvent]) -> list[Opened]:  # noqa: ARG002
        self.withheld[NOT_ASKED] += sum(len(one.sealed) for one in page)
        return [{} for _one in page]
