"""Sees to it that the vault has every key before an archive object needs it.

``ensure`` returns only when the keys of all the subjects asked for are in the vault, durably, and
the database remembers in which object. Subjects seen before cost a set look-up.
"""

from __future__ import annotations

import asyncio

from pipeline.domain.escrow import NOBODY, EscrowSource
from sinks.vault import Vault


class KeyEscrow:
    """Moves new keys to the vault in batches of at most ``batch_keys``.

    Remembers up to ``remembered`` subjects known to be escrowed; beyond that it asks again.
    """

    def __init__(
        self,
        source: EscrowSource,
        vault: Vault,
        *,
        remembered: int = 200_000,
        batch_keys: int = 5_000,
    ) -> None:
        self._source = source
        self._vault = vault
        self._remembered = remembered
        self._batch_keys = batch_keys
        # Two generations: dropping the older one is a least-recently-used order that is cheap.
        self._recent: set[bytes] = set()
        self._older: set[bytes] = set()
        self._lock = asyncio.Lock()

    async def ensure(self, refs: set[bytes]) -> None:
        """Return once the keys of these subjects are in the vault.

        Raises:
            Unavailable: Ask for the same subjects again later.
            ConfigurationError: No vault bucket, or no permission.
        """
        if refs <= self._recent:
            return
        # Objects of several logs are stored together and share subjects: one batch for all.
        async with self._lock:
            missing = sorted(refs - self._recent - self._older - {NOBODY})
            for start in range(0, len(missing), self._batch_keys):
                await self._escrow(missing[start : start + self._batch_keys])
            self._remember(refs)

    async def _escrow(self, refs: list[bytes]) -> None:
        entries = await self._source.unescrowed(refs)
        if entries:
            ordered = sorted(entries, key=lambda entry: entry.subject_ref)
            name = await self._vault.escrow(ordered)
            erased = await self._source.mark([entry.subject_ref for entry in ordered], name)
            if erased:  # between reading and writing: no copy may outlive the key
                await self._vault.drop(name, frozenset(erased))
        self._remember(set(refs))

    def _remember(self, refs: set[bytes]) -> None:
        self._recent |= refs
        if len(self._recent) > self._remembered // 2:
            self._older, self._recent = self._recent, set()
