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
from typing import Any, Final, NamedTuple

import orjson
from cryptography.exceptions import InvalidTag

from pipeline.domain.canonical import may_hold_control
from pipeline.domain.records import SealedBlob
from pipeline.keys.subjects import NOBODY, SubjectKey

FORMAT_VERSION = 1
_SORTED: Final = orjson.OPT_SORT_KEYS
_NONCE_BYTES: Final = 12
_NONCES_AT_ONCE: Final = 256
_SHAPES_MAX: Final = 5_000

# Of `nobody`, the fixed subject of values whose owner was erased: no key, no blob, zeros to commit to.
_NO_COMMITMENT = b2a_base64(bytes(32), newline=False)
_NOBODY_NAME = b'"%b":' % str(NOBODY).encode()

Flat = Mapping[str, Any]


class Sealed(NamedTuple):
    """An event as it is hashed and stored. ``suspicious``: some text may hold a control character."""

    canonical: bytes
    leaf_hash: bytes
    blobs: Sequence[SealedBlob]
    suspicious: bool


class _Shape(NamedTuple):
    """The commitments to values of the same paths, as JSON with a gap for each."""

    template: bytes
    fields: Sequence[tuple[bytes, str]]  # path ‖ 0x00 and path, in the order of the gaps


class _Shapes(dict[tuple[str, ...], _Shape]):
    """By paths in the order in which they come; bounded, because paths of a hostile schema are not."""

    def __missing__(self, paths: tuple[str, ...]) -> _Shape:
        if len(self) >= _SHAPES_MAX:
            self.clear()
        ordered = sorted(paths, key=str.encode)
        gaps = b",".join([orjson.dumps(path).replace(b"%", b"%%") + b':"%b"' for path in ordered])
        shape = self[paths] = _Shape(
            b"{" + gaps + b"}",
            [(path.encode() + b"\x00", path) for path in ordered],
        )
        return shape


_shapes = _Shapes()
_nonces: list[bytes] = []
# A child process must not draw what its parent draws: a nonce may not come twice under one key.
os.register_at_fork(after_in_child=_nonces.clear)


def seal(
    family: str, event_id: bytes, clear: Flat, sealed: Sequence[tuple[SubjectKey | None, Flat]]
) -> Sealed:
    """Seal one event: ``sealed`` holds the values of each subject by path, each subject once.

    Values of a subject without a key (it was erased) are sealed to nobody: they are gone. The
    canonical bytes and the leaf hash depend on the event and the keys alone; the blobs differ at
    every call (fresh nonces).
    """
    dumps = orjson.dumps
    commitments: list[bytes] = []
    blobs: list[SealedBlob] = []
    erased: tuple[str, ...] = ()
    suspicious = False
    for key, values in sealed:
        if key is None:
            erased += tuple(values)
            continue
        commitments.append(key.ref_name + _commitments(key, event_id, values))
        plain = dumps(values, option=_SORTED)
        suspicious = suspicious or may_hold_control(plain)
        nonce = _nonce()
        ciphertext = key.blob_cipher.encrypt(nonce, plain, event_id + key.ref)
        blobs.append(SealedBlob(key.ref, nonce, ciphertext))
    if erased:
        template = _shapes[erased].template
        commitments.append(_NOBODY_NAME + template % ((_NO_COMMITMENT,) * len(erased)))
    # Names have one length, so that these sort as the names do.
    commitments.sort()
    clear_json = dumps(clear, option=_SORTED)
    canonical = b'{"clear":%b,"family":"%b","sealed":{%b},"v":%d}' % (
        clear_json,
        family.encode(),
        b",".join(commitments),
        FORMAT_VERSION,
    )
    leaf_hash = sha256(b"\x00" + canonical).digest()
    return Sealed(canonical, leaf_hash, blobs, suspicious or may_hold_control(clear_json))


def _commitments(key: SubjectKey, event_id: bytes, values: Flat) -> bytes:
    """A JSON object: path → commitment, by path. A copied hash costs half of a new one."""
    shape = _shapes[tuple(values)]
    event_key = blake2b(event_id, key=key.commit_key, digest_size=32).digest()
    keyed = blake2b(key=event_key, digest_size=32).copy
    encoded = []
    for prefix, path in shape.fields:
        hashed = keyed()
        hashed.update(prefix + orjson.dumps(values[path], option=_SORTED))
        encoded.append(b2a_base64(hashed.digest(), newline=False))
    return shape.template % tuple(encoded)


def _nonce() -> bytes:
    """12 fresh random bytes, drawn from the system many at a time."""
    while True:
        try:
            return _nonces.pop()
        except IndexError:
            drawn = os.urandom(_NONCE_BYTES * _NONCES_AT_ONCE)
            _nonces.extend(
                [drawn[at : at + _NONCE_BYTES] for at in range(0, len(drawn), _NONCE_BYTES)]
            )


def seal_values(key: SubjectKey, event_id: bytes, values: Flat) -> SealedBlob:
    """The blob of one subject's values in one event, under a fresh nonce: after a value was cut from it."""
    nonce = _nonce()
    plain = orjson.dumps(values, option=_SORTED)
    return SealedBlob(key.ref, nonce, key.blob_cipher.encrypt(nonce, plain, event_id + key.ref))


def commitment(key: SubjectKey, event_id: bytes, path: str, value: Any) -> bytes:
    """The commitment to one value: what an auditor recomputes from an export."""
    event_key = blake2b(event_id, key=key.commit_key, digest_size=32).digest()
    message = path.encode() + b"\x00" + orjson.dumps(value, option=_SORTED)
    return blake2b(message, key=event_key, digest_size=32).digest()


def committed_member(key: SubjectKey, event_id: bytes, values: Flat) -> bytes:
    """The member of ``sealed`` that an event with these values of one subject has: name and commitments."""
    return key.ref_name + _commitments(key, event_id, values)


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
