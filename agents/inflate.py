"""Record batches are inflated within a bound: a small batch cannot take the worker's memory.

aiokafka's decompressors have no limit (a 500 KB batch became 500 MB [measured]); these do, per
codec, before or while output is made. ``install`` puts them in aiokafka's place, process-wide.
Source: KIP-98 record batch format v2; AVRO-4247 for the class of attack.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module

import cramjam
import lz4.frame
import zstandard

from agents.weigh import BatchTooLarge, check_records
from pipeline.domain.errors import AuditTrailError

_XERIAL_HEADER = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
_GZIP_WINDOW = 31
# Where aiokafka looks its decompressors up: the pure Python module and the compiled one.
_MODULES = (
    "aiokafka.record.default_records",
    "aiokafka.record._crecords.default_records",
)
_LEGACY_MODULES = (
    "aiokafka.record.legacy_records",
    "aiokafka.record._crecords.legacy_records",
)
# Of the inflated bytes: what the records may take in memory once they are made.
MEMORY_FACTOR = 4

Inflate = Callable[[bytes], bytes]


class BatchCorrupt(AuditTrailError):
    """A record batch does not inflate."""


def bounded(limit: int) -> dict[str, Inflate]:
    """A decompressor per codec that gives at most ``limit`` bytes.

    Each raises ``BatchTooLarge`` past the limit, ``BatchCorrupt`` for what does not inflate.
    """

    def gzip_decode(deflated: bytes) -> bytes:
        try:
            stream = zlib.decompressobj(_GZIP_WINDOW)
            return _whole(stream.decompress(deflated, limit + 1), limit)
        except zlib.error as error:
            raise BatchCorrupt("gzip") from error

    def zstd_decode(deflated: bytes) -> bytes:
        try:
            with zstandard.ZstdDecompressor().stream_reader(deflated) as stream:
                return _whole(stream.read(limit + 1), limit)
        except zstandard.ZstdError as error:
            raise BatchCorrupt("zstd") from error

    def lz4_decode(deflated: bytes) -> bytes:
        try:
            stream = lz4.frame.LZ4FrameDecompressor()
            return _whole(stream.decompress(deflated, limit + 1), limit)
        except RuntimeError as error:
            raise BatchCorrupt("lz4") from error

    def snappy_decode(deflated: bytes) -> bytes:
        try:
            return _snappy(bytes(deflated), limit)
        except cramjam.DecompressionError as error:
            raise BatchCorrupt("snappy") from error

    return {
        "gzip_decode": gzip_decode,
        "zstd_decode": zstd_decode,
        "lz4_decode": lz4_decode,
        "snappy_decode": snappy_decode,
    }


def install(limit: int) -> None:
    """Bound every record batch that this process inflates from now on."""
    for name in (*_MODULES, *_LEGACY_MODULES):
        module = import_module(name)
        for codec, inflate in bounded(limit).items():
            if hasattr(module, codec):
                setattr(module, codec, _weighed(inflate, limit) if name in _MODULES else inflate)


def _weighed(inflate: Inflate, limit: int) -> Inflate:
    def inflate_and_weigh(deflated: bytes) -> bytes:
        records = inflate(deflated)
        check_records(records, MEMORY_FACTOR * limit)
        return records

    return inflate_and_weigh


def _whole(inflated: bytes, limit: int) -> bytes:
    if len(inflated) > limit:
        raise BatchTooLarge(f"inflates past {limit} bytes")
    return inflated


def _snappy(deflated: bytes, limit: int) -> bytes:
    """Raw snappy, or blocks in the xerial framing; each block says its size at its start."""
    if not deflated.startswith(_XERIAL_HEADER):
        return _snappy_block(deflated, limit)
    blocks, room, at = [], limit, _XERIAL_HEADER_BYTES
    while at < len(deflated):
        size = int.from_bytes(deflated[at : at + 4], "big")
        block = _snappy_block(deflated[at + 4 : at + 4 + size], room)
        room -= len(block)
        blocks.append(block)
        at += 4 + size
    return b"".join(blocks)


def _snappy_block(deflated: bytes, limit: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(deflated) > limit:
        raise BatchTooLarge(f"inflates past {limit} bytes")
    return bytes(cramjam.snappy.decompress_raw(deflated))
