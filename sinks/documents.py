"""From a sealed event to its document in the search index, in ECS names.

One function for the hot path and for catch-up: the same event and the same opened values give the
same bytes, in whatever order the values come. A value whose key is gone leaves its field out.
Names follow the Elastic Common Schema; what ECS lacks is under ``audit``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

import orjson

from pipeline.domain.records import SealedEvent
from sinks.document_shapes import ECS_VERSION, PERSON, TARGETS, Shapes

_SORTED = orjson.OPT_SORT_KEYS
_EFFECTIVE_RELATION = "on_behalf_of"
SERVER_FIELDS = (
    "@timestamp",
    "event.created",
    "event.ingested",
    "event.hash",
    "audit.log",
    "audit.leaf_index",
    "audit.offset",
    "audit.schema_id",
    "audit.late",
)


class Documents:
    """Builds documents; ``related.*`` holds every user, address and host of the event, so that one
    click finds what else they did (Source: ECS). ``late_after_s``: an event stored so long after it
    happened is marked.
    """

    def __init__(self, *, late_after_s: int) -> None:
        self.late_after_us = late_after_s * 1_000_000
        self._families: dict[str, Shapes] = {}

    def document(self, event: SealedEvent, log: str, leaf_index: int) -> bytes:
        """The document of one leaf, as JSON without a line break."""
        clear, opened = event.clear, event.opened
        shapes = self.shapes(event.family)
        shape = shapes.of(clear, opened)
        fields = shape.fields(clear, opened, self._server_values(event, log, leaf_index))
        if event.actor_ref is not None:
            fields["audit.actor.ref"] = _ref_text(event.actor_ref)
        blobs = event.blobs
        if len(blobs) == 1:
            fields["audit.subject_ref"] = [_ref_text(blobs[0].subject_ref)]
        elif blobs:
            fields["audit.subject_ref"] = sorted({_ref_text(blob.subject_ref) for blob in blobs})
        if shape.has_targets:
            _add_targets(fields)
        if shape.has_people:
            people = {value for value in shape.people(clear, opened) if isinstance(value, str)}
            fields["related.user"] = sorted(people)
        if shape.has_source:
            _add_source(fields)
        # What follows from a few symbols is ready as bytes: 7 fields less to write each time.
        return shapes.head(clear) + orjson.dumps(fields, option=_SORTED)[1:]

    def shapes(self, family: str) -> Shapes:
        """What the documents of a family look like."""
        shapes = self._families.get(family)
        if shapes is None:
            shapes = self._families[family] = Shapes(family, SERVER_FIELDS)
        return shapes

    def stub(self, event: SealedEvent, log: str, leaf_index: int, *, refused: str) -> bytes:
        """What stands for a document that the index refused: where to find the event, no content.

        ``refused`` is the type of the server's error, never its text, which quotes values.
        """
        server = self._server_values(event, log, leaf_index)
        fields: dict[str, Any] = dict(zip(SERVER_FIELDS, server, strict=True))
        fields["ecs.version"] = ECS_VERSION
        fields["event.kind"] = "event"
        fields["event.id"] = uuid_text(event.event_id)
        fields["audit.family"] = event.family
        fields["audit.index_refused"] = refused
        if isinstance(event.clear.get("tenant"), str):
            fields["organization.id"] = event.clear["tenant"]
        return orjson.dumps(fields, option=_SORTED)

    def _server_values(self, event: SealedEvent, log: str, leaf_index: int) -> tuple[Any, ...]:
        """Values of ``SERVER_FIELDS``, in that order."""
        occurred_at_us, stored_at_us = event.occurred_at_us, event.stored_at_us
        return (
            time_text(occurred_at_us),
            _batch_time_text(event.broker_timestamp_ms * 1000),
            _batch_time_text(stored_at_us),
            event.leaf_hash.hex(),
            log,
            leaf_index,
            event.offset,
            event.schema_id,
            stored_at_us - occurred_at_us > self.late_after_us,
        )


def _add_targets(fields: dict[str, Any]) -> None:
    """Targets as users too: who was acted on, and on whose behalf."""
    for target in fields[TARGETS]:
        role = "effective" if target.get("relation") == _EFFECTIVE_RELATION else "target"
        for name in PERSON:
            if name in target:
                fields.setdefault(f"user.{role}.{name}", []).append(target[name])


def _add_source(fields: dict[str, Any]) -> None:
    """Addresses and hosts, each where the mapping takes it, so that no document is refused for it."""
    address = fields.get("source.ip")
    if isinstance(address, str) and is_ip(address):
        fields["related.ip"] = [address]
    elif address is not None:
        fields["source.address"] = fields.pop("source.ip")
    if "source.domain" in fields or "source.address" in fields:
        hosts = {
            host
            for host in (fields.get("source.domain"), fields.get("source.address"))
            if isinstance(host, str)
        }
        fields["related.hosts"] = sorted(hosts)


def time_text(time_us: int) -> str:
    """UTC with microseconds, as ISO 8601 writes it."""
    seconds, micros = divmod(time_us, 1_000_000)
    return f"{_second_text(seconds)}.{micros:06d}Z"


# Times that the events of one batch share: of the broker, of the ledger's transaction.
_batch_time_text = lru_cache(maxsize=4096)(time_text)


@lru_cache(maxsize=4096)
def _second_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def month_text(time_us: int) -> str:
    """``YYYY.MM`` of a time, which names its index."""
    return _month_text(time_us // 86_400_000_000)


@lru_cache(maxsize=4096)
def _month_text(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y.%m")


def uuid_text(uuid: bytes) -> str:
    """The usual text of the 16 bytes of a UUID."""
    text = uuid.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


# Subjects come again and again, event ids do not.
_ref_text = lru_cache(maxsize=16_384)(uuid_text)


@lru_cache(maxsize=16_384)
def is_ip(text: str) -> bool:
    """Whether an index field of type ``ip`` takes this; no zone, no port, no leading zeros."""
    for family in (AF_INET, AF_INET6):
        try:
            inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False
