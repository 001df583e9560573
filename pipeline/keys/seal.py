"""Sealing: personal data leaves the event; commitments stay, and one blob per subject goes beside.

From a subject's key K: Kc and Kb (``pipeline.keys.subjects``). Ke = BLAKE2b-256(key Kc, event id);
commitment = BLAKE2b-256(key Ke, path ‖ 0x00 ‖ canonical value); blob = AES-256-GCM under Kb with
a fresh random nonce. Commitments are hashed into the leaf, blobs are not: a field can be cut from a
blob, or a key destroyed, and every proof still verifies. Source: RFC 7693, NIST SP 800-38D, DESIGN §4.
"""

from __future__ import annotations

import os
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from hashlib import blake2b, sha256
from typing import Any, NamedTuple

import orjson
from cryptography.exceptions import InvalidTag

from pipeline.domain.canonical import may_hold_control
from pipeline.domain.records import SealedBlob
from pipeline.keys.subjects import NOBODY, SubjectKey

FORMAT_VERSION = 1
_SORTED = orjson.OPT_SORT_KEYS
_PREFIX_CACHE_MAX = 20_000

# Of `nobody`, the fixed subject of values whose owner was erased: no key, no blob, zeros to commit to.
_NO_COMMITMENT = b2a_base64(bytes(32), newline=False).decode()

Flat = Mapping[str, Any]


class Sealed(NamedTuple):
    """An event as it is hashed and stored. ``suspicious``: some text may hold a control character."""

    canonical: bytes
    leaf_hash: bytes
    blobs: Sequence[SealedBlob]
    suspicious: bool


class _PathPrefixes(dict[str, bytes]):
    """``path ‖ 0x00``; bounded, because paths of a hostile schema are not."""

    def __missing__(self, path: str) -> bytes:
        if len(self) >= _PREFIX_CACHE_MAX:
            self.clear()
        prefix = self[path] = path.encode() + b"\x00"
        return prefix


_prefixes = _PathPrefixes()


def seal(
    family: str, event_id: bytes, clear: Flat, sealed: Sequence[tuple[SubjectKey | None, Flat]]
) -> Sealed:
    """Seal one event: ``sealed`` holds the values of each subject by path, each subject once.

    Values of a subject without a key (it was erased) are sealed to nobody: they are gone. The canonical bytes and the leaf hash depend on the event and the keys alone; the blobs differ
    at every call (fresh nonces).
    """
    commitments: dict[str, dict[str, str]] = {}
    blobs = []
    nonces = os.urandom(12 * len(sealed))
    dumps = orjson.dumps
    prefixes = _prefixes
    at = 0
    suspicious = False
    for key, values in sealed:
        if key is None:
            nobody = commitments.setdefault(str(NOBODY), {})
            nobody.update(dict.fromkeys(values, _NO_COMMITMENT))
            continue
        event_key = blake2b(event_id, key=key.commit_key, digest_size=32).digest()
        commitments[key.ref_text] = {
            path: b2a_base64(
                blake2b(
                    prefixes[path] + dumps(value, option=_SORTED), key=event_key, digest_size=32
                ).digest(),
                newline=False,
            ).decode("ascii")
            for path, value in values.items()
        }
        nonce = nonces[at : at + 12]
        at += 12
        plain = dumps(values, option=_SORTED)
        suspicious = suspicious or may_hold_control(plain)
        blobs.append(
            SealedBlob(key.ref, nonce, key.blob_cipher.encrypt(nonce, plain, event_id + key.ref))
        )
    canonical = dumps(
        {"clear": clear, "family": family, "sealed": commitments, "v": FORMAT_VERSION},
        option=_SORTED,
    )
    suspicious = suspicious or may_hold_control(canonical)
    return Sealed(canonical, sha256(b"\x00" + canonical).digest(), blobs, suspicious)


def commitment(key: SubjectKey, event_id: bytes, path: str, value: Any) -> bytes:
    """The commitment to one value: what an auditor recomputes from an export."""
    event_key = blake2b(event_id, key=key.commit_key, digest_size=32).digest()
    message = path.encode() + b"\x00" + orjson.dumps(value, option=_SORTED)
    return blake2b(message, key=event_key, digest_size=32).digest()


def open_blob(key: SubjectKey, event_id: bytes, blob: SealedBlob) -> dict[str, Any]:
    """The values of one subject in one event, by path.

    Raises:
        ValueError: The blob is of another event, of another subject, or was changed.
    """
    try:
        plain = key.blob_cipher.decrypt(blob.nonce, blob.ciphertext, event_id + blob.subject_ref)
    except InvalidTag:
        raise ValueError("a blob does not open under its subject's key") from None
    values: dict[str, Any] = orjson.loads(plain)
    return values
