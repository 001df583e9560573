"""How far every log is: end of the topic, ledger, and each store that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import RAW_TOPICS
from pipeline.entrypoints.cli.database import connected
from pipeline.entrypoints.cli.kafka import reader, watermarks
from pipeline.entrypoints.cli.output import Row
from pipeline.entrypoints.cli.stores import call_operations

if TYPE_CHECKING:
    from pipeline.settings import Settings

FOLLOWERS: Final = ("index", "archive")
COLUMNS: Final = (
    "log",
    "leaves",
    "next_offset",
    "end_offset",
    "lag_records",
    *(f"{follower}_lag_{unit}" for follower in FOLLOWERS for unit in ("records", "s")),
    "paused",
)

# The newest epoch of each topic-partition is the one that grows; a store may still lack leaves of an
# older one. The age of a follower is that of the oldest leaf that it lacks; ``stored_at`` is beside the
# event, found by the leaf's own month.
SELECT_HEADS: Final = """
    SELECT log_id, name, topic, partition, next_offset, size, encode(root, 'hex') AS root,
           epoch = max(epoch) OVER (PARTITION BY topic, partition) AS grows
    FROM log_heads ORDER BY topic, partition, epoch
"""
SELECT_POSITIONS: Final = """
    SELECT position.follower, position.log_id, position.next_leaf,
           extract(epoch FROM clock_timestamp() - (
               SELECT event.stored_at FROM leaves AS leaf
               JOIN audit_logs AS event USING (log_id, leaf_index, occurred_at)
               WHERE leaf.log_id = position.log_id AND leaf.leaf_index = position.next_leaf
           ))::float8 AS age_s
    FROM follower_position AS position
"""
# A log that no follower has stored anything of has no position row.
SELECT_FIRST_AGE: Final = """
    SELECT extract(epoch FROM clock_timestamp() - event.stored_at)::float8 AS age_s
    FROM leaves AS leaf JOIN audit_logs AS event USING (log_id, leaf_index, occurred_at)
    WHERE leaf.log_id = %(log_id)s AND leaf.leaf_index = 0
"""


def log_rows(settings: Settings) -> list[Row]:
    """A row per log, those that ended too, and one per partition of a raw topic that has no log yet.

    Raises:
        Unavailable: Kafka or the database does not answer.
        ConfigurationError: There is no schema yet.

    """
    heads, positions, pauses = _ledger(settings)
    ends = _ends(settings)
    rows = []
    for place in sorted(set(heads) | set(ends)):
        end, paused = ends.get(place), pauses.get(place, "")
        for head in heads.get(place, [None]):
            grows = head is None or head["grows"]
            rows.append(
                _row(place, head, end if grows else None, positions, paused if grows else "")
            )
    return rows


Place = tuple[str, int]
Positions = dict[tuple[str, int], tuple[int, float | None]]


def _ledger(
    settings: Settings,
) -> tuple[dict[Place, list[dict[str, Any] | None]], Positions, dict[Place, str]]:
    """The logs of each partition, the newest last; positions; why a partition is paused."""
    with connected(settings) as connection:
        heads = connection.execute(SELECT_HEADS).fetchall()
        found = connection.execute(SELECT_POSITIONS).fetchall()
        positions: Positions = {
            (row["follower"], row["log_id"]): (row["next_leaf"], row["age_s"]) for row in found
        }
        for head in heads:
            lacking = [name for name in FOLLOWERS if (name, head["log_id"]) not in positions]
            if lacking and head["size"]:
                first = connection.execute(SELECT_FIRST_AGE, head).fetchone()
                age_s = first["age_s"] if first else None
                positions |= {(name, head["log_id"]): (0, age_s) for name in lacking}
    pauses = call_operations(settings, lambda operations: operations.pauses())
    of_place: dict[Place, list[dict[str, Any] | None]] = {}
    for head in heads:
        of_place.setdefault((head["topic"], head["partition"]), []).append(head)
    return (
        of_place,
        positions,
        {(pause.topic, pause.partition): pause.reason for pause in pauses},
    )


def _ends(settings: Settings) -> dict[Place, int]:
    consumer = reader(settings)
    ends: dict[Place, int] = {}
    try:
        for topic in RAW_TOPICS:
            try:
                marks = watermarks(consumer, topic, timeout_s=settings.request_timeout_s)
            except ConfigurationError:
                # A topic that is not there has no end; its log, if there is one, is still shown.
                continue
            ends |= {(topic, partition): high for partition, (_, high) in marks.items()}
    finally:
        consumer.close()
    return ends


def _row(
    place: Place,
    head: dict[str, Any] | None,
    end: int | None,
    positions: Positions,
    paused: str,
) -> Row:
    size = head["size"] if head else 0
    next_offset = head["next_offset"] if head else 0
    row: dict[str, str | int | float | None] = {
        "log": head["name"] if head else f"{place[0]}/{place[1]}",
        "leaves": size,
        "next_offset": next_offset,
        "end_offset": end,
        "lag_records": None if end is None else end - next_offset,
        "root": head["root"] if head else None,
    }
    for follower in FOLLOWERS:
        log_id = head["log_id"] if head else -1
        next_leaf, age_s = positions.get((follower, log_id), (0, None))
        lag = size - next_leaf
        row[f"{follower}_next_leaf"] = next_leaf
        row[f"{follower}_lag_records"] = lag
        row[f"{follower}_lag_s"] = round(age_s, 3) if lag > 0 and age_s is not None else 0.0
    row["paused"] = paused
    return row
