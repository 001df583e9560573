"""Witnesses: others who cosign a checkpoint after they saw that the log only grew.

They are asked all at once and waited for within one bound; one that is away delays no later
checkpoint, since it is left alone for a while.

Source: C2SP tlog-witness, ``add-checkpoint``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from pipeline.compliance.metrics import SignerMetrics
from pipeline.domain.checkpoints import Checkpoint
from pipeline.domain.errors import AuditTrailError, ConfigurationError
from pipeline.domain.notes import (
    ED25519_COSIGNATURE,
    Note,
    NoteRefused,
    Signature,
    VerifierKey,
    parse_note,
    signed_by,
)
from pipeline.keys.note_keys import verify_note
from pipeline.logging import log_event

log = logging.getLogger(__name__)

WITNESSES_MAX = 16
FILE_MAX_BYTES = 64 * 1024
ANSWER_MAX_BYTES = 16 * 1024
REST_S = 60.0  # so long a witness that failed is not asked again
SIZE_TYPE = "text/x.tlog.size"

Prove = Callable[[int], Awaitable[list[bytes]]]


@dataclass(frozen=True, slots=True)
class Witness:
    """Where it is asked (the submission prefix), and the key by which it cosigns."""

    url: str
    key: VerifierKey


class WitnessRefused(AuditTrailError):
    """A witness did not cosign; the message says why. Nothing depends on it but its cosignature."""


def load_witnesses(path: Path | None) -> list[Witness]:
    """Those of AUDIT_WITNESSES_FILE: URL and verifier key a line; none if it is not set.

    Raises:
        ConfigurationError: The file cannot be read; names the line.
    """
    if path is None:
        return []
    try:
        with path.open(encoding="utf-8") as file:
            lines = file.read(FILE_MAX_BYTES).splitlines()
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"AUDIT_WITNESSES_FILE: {path} cannot be read") from None
    found = [
        _witness(line, f"AUDIT_WITNESSES_FILE: {path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if len(found) > WITNESSES_MAX:
        raise ConfigurationError(f"AUDIT_WITNESSES_FILE: at most {WITNESSES_MAX} witnesses")
    return found


class Witnesses:
    """Life cycle: ``open`` once, ``cosign`` any number of times, also at once, ``close`` once."""

    def __init__(
        self,
        witnesses: Sequence[Witness],
        metrics: SignerMetrics,
        *,
        timeout_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._witnesses = witnesses
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._now = now
        self._resting: dict[Witness, float] = {}
        self._sizes: dict[tuple[Witness, str], int] = {}  # what each cosigned last, as far as known
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Nothing is asked yet."""
        # ``cosign`` bounds all of them together: two bounds that end at once would count one twice.
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def cosign(
        self, checkpoint: Checkpoint, note: Note, prove: Prove, *, old_size: int
    ) -> list[Signature]:
        """The cosignatures that came in time, verified; none is needed, so nothing is raised.

        ``prove`` gives the consistency proof from a size to the checkpoint's; ``old_size``: of the
        checkpoint before, which a witness has most likely.
        """
        asked = [one for one in self._witnesses if self._resting.get(one, 0.0) <= self._now()]
        if not asked:
            return []
        tasks = {
            asyncio.create_task(self._cosign(one, checkpoint, note, prove, old_size)): one
            for one in asked
        }
        done, late = await asyncio.wait(tasks, timeout=self._timeout_s)
        for task in late:
            task.cancel()
            self._failed(tasks[task], checkpoint, "no answer in time")
        await asyncio.gather(*late, return_exceptions=True)
        return [signature for task in tasks if task in done for signature in task.result()]

    async def _cosign(
        self, witness: Witness, checkpoint: Checkpoint, note: Note, prove: Prove, old_size: int
    ) -> list[Signature]:
        place = (witness, checkpoint.origin)
        try:
            found = await self._add_checkpoint(
                witness, checkpoint, note, prove, self._sizes.get(place, old_size)
            )
        except (WitnessRefused, aiohttp.ClientError, TimeoutError, AuditTrailError) as error:
            why = str(error) if isinstance(error, AuditTrailError) else type(error).__name__
            self._failed(witness, checkpoint, why)
            return []
        self._sizes[place] = checkpoint.size
        self._metrics.cosigned(witness.key.name)
        return found

    async def _add_checkpoint(
        self, witness: Witness, checkpoint: Checkpoint, note: Note, prove: Prove, old_size: int
    ) -> list[Signature]:
        for _attempt in range(2):  # the second with the size that the witness itself named
            proof = await prove(old_size) if 0 < old_size < checkpoint.size else []
            lines = "".join(f"{b64encode(node).decode()}\n" for node in proof)
            body = f"old {old_size}\n{lines}\n".encode() + note.encode()
            status, kind, answer = await self._post(witness, body)
            if status == 200:
                return _cosignatures(witness, checkpoint, answer)
            if status != 409 or kind != SIZE_TYPE:
                break
            held = _size(answer)
            if held > checkpoint.size:
                raise WitnessRefused(
                    f"it has seen {held} leaves of {checkpoint.origin}, {checkpoint.size} are signed"
                    " now: were ledger and archive rolled back together?"
                )
            if held == old_size:
                break
            old_size = held
        if status == 409:
            raise WitnessRefused(f"it has seen another root of {checkpoint.origin} at this size")
        raise WitnessRefused(f"it answers {status}")

    async def _post(self, witness: Witness, body: bytes) -> tuple[int, str, bytes]:
        if self._session is None:
            raise RuntimeError("the witnesses were not opened")
        async with self._session.post(
            f"{witness.url}/add-checkpoint",
            data=body,
            headers={"Content-Type": "text/plain; charset=utf-8"},
            allow_redirects=False,
        ) as answer:
            content = await answer.content.read(ANSWER_MAX_BYTES)
            while not answer.content.at_eof() and len(content) < ANSWER_MAX_BYTES:
                content += await answer.content.read(ANSWER_MAX_BYTES - len(content))
            return answer.status, answer.content_type, content

    def _failed(self, witness: Witness, checkpoint: Checkpoint, why: str) -> None:
        self._resting[witness] = self._now() + REST_S
        self._metrics.witness_failed(witness.key.name)
        log_event(
            log,
            "witness_failed",
            level=logging.WARNING,
            witness=witness.key.name,
            log=checkpoint.origin,
            why=why,
        )


def _witness(line: str, where: str) -> Witness:
    url, _, vkey = line.strip().partition(" ")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(f"{where}: a line is the witness's URL and its verifier key")
    try:
        key = VerifierKey.parse(vkey)
    except NoteRefused as error:
        raise ConfigurationError(f"{where}: {error}") from None
    if key.algorithm != ED25519_COSIGNATURE:
        raise ConfigurationError(f"{where}: {key.name} is not a witness's key (type 4)")
    return Witness(url.rstrip("/"), key)


def _cosignatures(witness: Witness, checkpoint: Checkpoint, answer: bytes) -> list[Signature]:
    """The witness's own lines of an answer; others are passed over."""
    try:
        note = parse_note(f"{checkpoint.text}\n".encode() + answer)
        verify_note(note, [witness.key])
    except NoteRefused as error:
        raise WitnessRefused(f"its answer is no cosignature: {error}") from None
    return [signature for _, signature in signed_by(note, [witness.key])]


def _size(answer: bytes) -> int:
    text = answer.removesuffix(b"\n")
    if not text.isdigit() or len(text) > 19:
        raise WitnessRefused("its answer is no size")
    return int(text)
