"""What bad records cost: worker CPU per good event with none and with one in a hundred, in turns.

Both runs have the same good events; the bad ones come on top, spread over every partition, of
several kinds. Each has a letter at the end, or the run does not count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from statistics import median
from typing import Any

import psycopg

from benchmark.kinds import PARTITIONS, Kind, object_leaves
from benchmark.pairs import publish, run_worker
from benchmark.places import Place, Places
from pipeline.codec.wire import HEADER_BYTES
from pipeline.entrypoints.cli.output import say
from pipeline.importers.encode import RawRecord
from pipeline.settings import Settings

# One bad record after so many good ones, in each partition.
GOOD_PER_BAD = 99


def run_bad_records(
    kind: Kind, places: Places, settings: Settings, schema_ids: Mapping[str, int], **wanted: int
) -> dict[str, float]:
    """``pairs`` pairs of runs over ``events`` good events; figures are medians over them."""
    count = wanted["events"]
    clean = kind.encoded(count, schema_ids)
    mixed = with_bad_records(clean)
    bad = len(mixed) - count
    say(f"{kind.name}: {count:,} events, and the same with {bad:,} bad records among them")
    ratios: list[float] = []
    costs: dict[int, list[float]] = {0: [], bad: []}
    for number in range(1, wanted["pairs"] + 1):
        # The first of a pair alternates: what drifts over a pair falls on both.
        for records in (clean, mixed) if number % 2 else (mixed, clean):
            places.empty_topics()
            publish(kind, records, settings)
            with places.place(object_leaves=object_leaves(count)) as place:
                found = run_worker(place, count)
                letters = len(records) - count
                require_letters(place, letters)
            costs[letters].append(found["cpu_s"] / count * 1e6)
        ratios.append(costs[bad][-1] / costs[0][-1])
        say(
            f"{kind.name}: pair {number}: {costs[0][-1]:.1f} us CPU an event, with bad records"
            f" {costs[bad][-1]:.1f}; ratio {ratios[-1]:.3f}"
        )
    return {
        "bad_records_cpu_ratio": round(median(ratios), 3),
        "bad_records_cpu_ratio_lowest": round(min(ratios), 3),
        "bad_records_cpu_ratio_highest": round(max(ratios), 3),
        # What others do on the machine only ever adds: the least disturbed run of each.
        "bad_records_cpu_ratio_of_best": round(min(costs[bad]) / min(costs[0]), 3),
        "bad_records_per_run": bad,
        "good_event_cpu_us": round(median(costs[0]), 1),
        "good_event_cpu_us_with_bad_records": round(median(costs[bad]), 1),
    }


def with_bad_records(good: Sequence[RawRecord]) -> list[RawRecord]:
    """The good records in their order, with a bad one after each ``GOOD_PER_BAD`` of a partition."""
    spoil = cycle(_WAYS)
    mixed: list[RawRecord] = []
    block = GOOD_PER_BAD * PARTITIONS
    for start in range(0, len(good), block):
        part = good[start : start + block]
        mixed += part
        if len(part) == block:
            mixed += [_spoiled(record, next(spoil)) for record in part[:PARTITIONS]]
    return mixed


def require_letters(place: Place, letters: int) -> None:
    """Every bad record has the key of its letter.

    Raises:
        RuntimeError: Another number has.
    """
    url = place.settings.database_admin_url.get_secret_value()
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT count(*), count(DISTINCT reason) FROM dead_letter_key"
        ).fetchone()
    if found != (letters, len(_WAYS) if letters else 0):
        raise RuntimeError(f"{found} dead letters and reasons, not {letters}")


def _spoiled(record: RawRecord, spoil: Callable[[bytes], bytes]) -> RawRecord:
    return dataclasses.replace(record, value=spoil(record.value))


def _ways() -> Iterator[Callable[[bytes], bytes]]:
    """Of a good value a bad one: each way is another reason, found at another depth."""
    yield lambda _value: b""  # empty_value
    yield lambda value: b"\x01" + value[1:]  # wrong_magic
    yield lambda value: value[: len(value) // 2]  # truncated
    yield lambda value: value + b"\x00"  # trailing_bytes
    yield lambda value: value[:HEADER_BYTES] + _not_an_id(value[HEADER_BYTES:])  # event_id_invalid


def _not_an_id(body: bytes) -> bytes:
    """The body with the first digit of its event id, which is its first field, made a letter."""
    return body[:1] + b"x" + body[2:]


_WAYS: Sequence[Callable[[bytes], Any]] = tuple(_ways())
