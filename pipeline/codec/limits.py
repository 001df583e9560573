"""What one event may hold: the limits of the judge; ``avro_schemas/contract.json`` says them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from avro_schemas import contract

_SAID: Final = contract.limits()


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one event and, last, on a schema; each of an event's is a setting. Text counts characters,
    label keys and values count bytes of UTF-8, ``items`` counts elements of any array or map.
    """

    event_bytes: int = _SAID["event_bytes"]
    text_chars: int = _SAID["text_chars"]
    label_key_bytes: int = _SAID["label_key_bytes"]
    label_value_bytes: int = _SAID["label_value_bytes"]
    items: int = _SAID["items"]
    changes: int = _SAID["changes"]
    schema_bytes: int = 256 * 1024
    schema_leaves: int = 2_000

    def items_at(self, path: str) -> int:
        """How many elements the array or map at a path may have."""
        return self.changes if path == "changes" else self.items
