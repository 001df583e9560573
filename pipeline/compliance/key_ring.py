"""The signing keys of a process that runs on: read again when their file changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.compliance.log_signer import RoundKeys
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.notes import VerifierKey
from pipeline.keys.provider import KeyProvider
from pipeline.keys.signing_keys import SETTING, active_keys, open_signer, read_keys


class KeyRing:
    """``provider`` is asked only when a seed has to be unwrapped; ``also_trusted`` signed before."""

    def __init__(
        self,
        path: Path | None,
        provider: Callable[[], KeyProvider],
        also_trusted: Sequence[VerifierKey] = (),
    ) -> None:
        self._path = path
        self._provider = provider
        self._also_trusted = also_trusted
        self._seen: tuple[int, ...] = ()
        self._keys: RoundKeys | None = None

    async def keys(self) -> RoundKeys:
        """Those of now.

        Raises:
            ConfigurationError: The file or the key provider cannot be used, or no key signs.
            Unavailable: The key provider does not answer.
        """
        seen = self._stamp()
        if self._keys is None or seen != self._seen:
            self._keys = await asyncio.to_thread(self._read)
            self._seen = seen
        return self._keys

    def _read(self) -> RoundKeys:
        keys = read_keys(self._path)
        signing = active_keys(keys)
        if not signing:
            raise ConfigurationError(
                f"{SETTING}: no key signs; run: audit-trail signing-key create"
            )
        provider = self._provider()
        trusted = dict.fromkeys([*(key.verifier for key in keys), *self._also_trusted])
        return RoundKeys([open_signer(provider, key) for key in signing], list(trusted))

    def _stamp(self) -> tuple[int, ...]:
        if self._path is None:
            return ()
        try:
            found = os.stat(self._path)  # noqa: PTH116 - one call, all its figures
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size
