"""``audit-trail generate``: made load at a chosen rate, acknowledged to the last event."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.entrypoints.cli.output import Row, progress
from pipeline.entrypoints.cli.published import ids_file
from pipeline.entrypoints.cli.publishing import Publisher
from pipeline.entrypoints.cli.schema_ids import registered_ids
from pipeline.entrypoints.cli.schemas import shipped
from pipeline.entrypoints.cli.tenants import require_tenants
from pipeline.generator.load import SHARES, generate
from pipeline.importers.encode import EventEncoder

if TYPE_CHECKING:
    from pipeline.settings import Settings

_DAY: Final = timedelta(days=1)
_DAY_US: Final = 86_400_000_000
_PACE_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Load:
    """What to generate. ``rate`` is events a second, 0 for no limit; no families: all."""

    count: int
    rate: float
    tenants: int
    seed: int
    families: tuple[str, ...] = ()
    start_at: datetime | None = None
    create_tenants: bool = False
    ids_file: Path | None = None

    @property
    def tenant_names(self) -> list[str]:
        """tenant-1, tenant-2, …"""
        return [f"tenant-{number}" for number in range(1, self.tenants + 1)]

    @property
    def start_at_us(self) -> int:
        """The first event's time; without a choice a day ago, so that none lies in the future."""
        start = self.start_at or datetime.now(UTC) - _DAY
        aware = start if start.tzinfo else start.replace(tzinfo=UTC)
        return int(aware.timestamp() * 1_000_000)


def generate_load(settings: Settings, load: Load) -> Row:
    """Publish the load; on return all of it is acknowledged. The row says what was reached.

    Raises:
        ConfigurationError: Unknown tenants or families, or schemas that are not registered.
        Unavailable: A server does not answer; some events may have been published.

    """
    shipped(load.families)
    require_tenants(settings, load.tenant_names, create=load.create_tenants)
    encoder = EventEncoder(registered_ids(settings, load.families))
    events = generate(
        load.count,
        seed=load.seed,
        start_at_us=load.start_at_us,
        span_us=_DAY_US,
        tenants=load.tenant_names,
        families=load.families or tuple(SHARES),
    )
    return publish_events(
        settings, encoder, events, count=load.count, rate=load.rate, file=load.ids_file
    )


def publish_events(
    settings: Settings,
    encoder: EventEncoder,
    events: Iterable[tuple[str, dict[str, Any]]],
    *,
    count: int,
    rate: float = 0.0,
    file: Path | None = None,
) -> Row:
    """Publish (family, event) pairs, ``rate`` a second (0: no limit); all are acknowledged on return.

    ``file`` gets the id and position of each. ``count`` is for the progress that is shown.

    Raises:
        Unavailable: The broker does not answer; some events may have been published.
        ValueError: An event does not follow its schema.

    """
    size_bytes = 0
    started = time.monotonic()
    with (
        ids_file(file) as ids,
        Publisher(settings) as publisher,
        progress("publishing", count) as done,
    ):
        for number, (family, event) in enumerate(events):
            if rate:
                _pace(publisher, started + number / rate)
            record = encoder.encode(family, event)
            size_bytes += len(record.value)
            publisher.publish(
                record.topic,
                key=record.key,
                value=record.value,
                headers=record.headers,
                delivered=ids.noting(event["event_id"]),
            )
            done.advance()
        publisher.flush()
    took_s = time.monotonic() - started
    return {
        "published": ids.acknowledged,
        "seconds": round(took_s, 3),
        "events_per_s": round(ids.acknowledged / took_s),
        "mean_event_bytes": round(size_bytes / max(ids.acknowledged, 1)),
    }


def _pace(publisher: Publisher, due: float) -> None:
    """Wait until an event is due, in steps that keep delivery reports coming."""
    while (early := due - time.monotonic()) > 0:
        publisher.poll()
        time.sleep(min(early, _PACE_S))
