"""What one event may hold: the limits of the judge, said once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one event and, last, on a schema; each of an event's is a setting. Text counts characters,
    label keys and values count bytes of UTF-8, ``items`` counts elements of any array or map.
    """

    event_bytes: int = 64 * 1024
    text_chars: int = 500
    label_key_bytes: int = 64
    label_value_bytes: int = 256
    items: int = 64
    changes: int = 20
    schema_bytes: int = 256 * 1024
    schema_leaves: int = 2_000

    def items_at(self, path: str) -> int:
        """How many elements the array or map at a path may have."""
        return self.changes if path == "changes" else self.items
