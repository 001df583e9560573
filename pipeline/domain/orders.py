"""Orders: what a redaction or an expiry is about, as the archive bucket keeps it and a leaf commits to it.

An order names leaves and paths, never a value and no person. It is enough to say, without the
database, what may be missing by whose request, and to remove it again after a restore.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from pipeline.domain.merkle import Frontier

FORMAT_VERSION = 1
ORDERS_PREFIX = "orders/"
REDACTION = "redaction"
EXPIRY = "expiry"


@dataclass(frozen=True, slots=True)
class Expiry:
    """Which leaves of a month expire. Times in µs since 1970; ``stored_after_us`` is not included.

    ``tenant`` None: the whole month goes. ``class_`` None: all classes. ``bounds``: log name → the
    leaf before which its leaves are affected, so that what comes later is not.
    """

    month: str  # YYYY-MM
    days: int
    stored_until_us: int
    bounds: Mapping[str, int]
    class_: str | None = None
    stored_after_us: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One request. ``leaves``: of a redaction, log name → (leaf index, paths), in their order."""

    request_id: UUID
    kind: str
    tenant: str | None
    reason: str
    requested_at_us: int
    count: int
    root: bytes
    leaves: Mapping[str, Sequence[tuple[int, tuple[str, ...]]]] = field(default_factory=dict)
    expiry: Expiry | None = None

    @property
    def event_id(self) -> UUID:
        """Id of the event that is its authority: announcing an order twice makes one leaf."""
        return authority_event_id(self.request_id)

    @property
    def key(self) -> str:
        """Name of the order object."""
        return order_key(self.request_id)

    def encode(self) -> bytes:
        """The order object: ASCII JSON with sorted keys, the same for the same order."""
        document: dict[str, Any] = {
            "v": FORMAT_VERSION,
            "request_id": str(self.request_id),
            "kind": self.kind,
            "tenant": self.tenant,
            "reason": self.reason,
            "requested_at": self.requested_at_us,
            "count": self.count,
            "root": self.root.hex(),
            "leaves": {
                log: [[leaf, list(paths)] for leaf, paths in leaves]
                for log, leaves in self.leaves.items()
            },
            "expiry": None if self.expiry is None else asdict(self.expiry),
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    def hash(self) -> bytes:
        """SHA-256 of the order object, which its leaf names."""
        return sha256(self.encode()).digest()


def decode_order(body: bytes) -> Order:
    """Read back what ``encode`` gave.

    Raises:
        ValueError: Not an order, or of a later version; the message repeats nothing of it.
    """
    try:
        found = json.loads(body)
        if found["v"] != FORMAT_VERSION:
            raise ValueError("an order of a version that this release does not know")
        return Order(
            request_id=UUID(found["request_id"]),
            kind=str(found["kind"]),
            tenant=found["tenant"],
            reason=str(found["reason"]),
            requested_at_us=int(found["requested_at"]),
            count=int(found["count"]),
            root=bytes.fromhex(found["root"]),
            leaves={
                log: [(int(leaf), tuple(paths)) for leaf, paths in leaves]
                for log, leaves in found["leaves"].items()
            },
            expiry=None if found["expiry"] is None else Expiry(**found["expiry"]),
        )
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError):
        raise ValueError("not an order object") from None


def order_key(request_id: UUID) -> str:
    """Name of the object of a request's order, in the archive bucket."""
    return f"{ORDERS_PREFIX}{request_id}.json"


def authority_event_id(request_id: UUID) -> UUID:
    """Id of the event that is a request's authority."""
    return uuid5(NAMESPACE_URL, f"urn:uuid:{request_id}")


def affected_root(hashes: Iterable[bytes]) -> bytes:
    """What a leaf commits to: the Merkle tree hash over the affected leaves' hashes, which come in the
    order of log name (by code point) and leaf index. Source: RFC 6962 §2.1.
    """
    return Frontier().append(list(hashes)).root()
