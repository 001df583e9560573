"""Events per log and hour of ``occurred_at``: how many there should be in a store, how many there are."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, Final

from pipeline.compliance.findings import Store
from sinks.archive_facts import PLACE, longs
from sinks.index_reader import Document
from sinks.rows import POSTGRES_EPOCH_US

HOUR_US: Final = 3_600_000_000
LISTED_MAX: Final = 200  # hours of one log

Hours = dict[int, list[int]]  # hour since 1970 → events that should be there, events that are


def count_places(
    hours: dict[Store, Hours],
    places: Mapping[Store, bytes],
    expired: AbstractSet[int] = frozenset(),
) -> None:
    """Count a range of leaves, as ``leaves`` and other stores have it (``sinks.archive_facts.PLACE``).

    ``expired``: leaves whose events the ledger lacks by authority.
    """
    known: dict[bytes, Counter[int]] = {}
    for packed in places.values():
        if packed not in known:
            known[packed] = _hours(packed)
    expected = known[places[Store.LEAVES]]
    for store, packed in places.items():
        if store is not Store.LEAVES:
            due = expected
            if store is Store.LEDGER and expired:
                due = _hours(_without(places[Store.LEAVES], expired))
            _add(hours.setdefault(store, {}), due, known[packed])


def count_documents(
    hours: Hours,
    places: bytes,
    documents: Iterable[Document],
    *,
    durable: int,
    expired: AbstractSet[int] = frozenset(),
) -> None:
    """Count documents beside the events of the same range; those of leaf ``durable`` and later may lag.

    ``expired``: as above, and so are their documents.
    """
    below = bisect_left(longs(places, PLACE.size, 0), durable)
    expected = _hours(_without(places[: below * PLACE.size], expired))
    found: Counter[int] = Counter()
    for document in documents:
        hour = _hour_of(document.source.get("@timestamp"))
        leaf = document.source.get("audit.leaf_index")
        if hour is not None and isinstance(leaf, int) and leaf < durable:
            found[hour] += 1
    _add(hours, expected, found)


def differing(log: str, hours: Mapping[Store, Hours]) -> list[dict[str, Any]]:
    """The hours in which a store has another number of events than it should, for output."""
    return [
        {
            "log": log,
            "hour": datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%HZ"),
            "store": store.value,
            "leaves": expected,
            "events": found,
        }
        for store, of_store in hours.items()
        for hour, (expected, found) in sorted(of_store.items())
        if expected != found
    ][:LISTED_MAX]


def _add(hours: Hours, expected: Counter[int], found: Counter[int]) -> None:
    for place, counter in enumerate((expected, found)):
        for hour, events in counter.items():
            hours.setdefault(hour, [0, 0])[place] += events


def _without(places: bytes, leaves: AbstractSet[int]) -> bytes:
    if not leaves:
        return places
    return b"".join([PLACE.pack(*one) for one in PLACE.iter_unpack(places) if one[0] not in leaves])


def _hours(places: bytes) -> Counter[int]:
    """Events by hour since 1970; PostgreSQL's epoch begins with an hour."""
    hour_us, begins = HOUR_US, POSTGRES_EPOCH_US // HOUR_US
    counted = Counter([at // hour_us for at in longs(places, PLACE.size, PLACE.size - 8)])
    return Counter({hour + begins: events for hour, events in counted.items()})


def _hour_of(text: object) -> int | None:
    """The hour of a document's time; None: it has none that can be read."""
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return int(aware.timestamp()) // 3_600
