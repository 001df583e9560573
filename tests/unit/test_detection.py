"""The two stages: windows in event time, any cut and any redelivery, lateness, dedup, no personal values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.detections.events import Accepting
from pipeline.detections.files import load_rules
from pipeline.detections.trials import flat_event, trial_hash
from pipeline.domain.detection.aggregate import LATENESS_US, Aggregator, IntakeCounts
from pipeline.domain.detection.alerts import Alert
from pipeline.domain.detection.cells import KEPT, POINTS, BottomK, trimmed, union
from pipeline.domain.detection.conditions import Place
from pipeline.domain.detection.counters import Counters, RangeOverlap, apply
from pipeline.domain.detection.kinds import distance_km, hour_slot
from pipeline.domain.detection.rows import CELLS_MAX, Row, expires_us
from pipeline.domain.detection.rules import MINUTE_US, Rule
from pipeline.domain.detection.signals import Signal, merge, pack, shard, unpack
from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange, SealedEvent
from pipeline.generator.attacks import labelled

RULES = Path(__file__).parents[2] / "agents" / "rules"
START = 1_790_000_400_000_000  # not on the edge of a bucket
NAME = LogName("audit.raw.authentication", 0, 0)


@cache
def rules() -> tuple[Rule, ...]:
    return tuple(one.rule for one in load_rules(RULES).files)


def rule(name: str) -> Rule:
    return next(one for one in rules() if one.name == name)


def a_failure(at_us: int, number: int = 0, *, late_us: int = 0, **values: object) -> SealedEvent:
    told = {
        "tenant": "acme", "action": "session.start", "operation": "logon", "outcome": "failure",
        "actor.type": "user", "actor.tenant": "acme", "actor.id_type": "user_id", "actor.id": "u-1",
        "source.ip": "192.0.2.77", "source.user_agent": "agent", **values,
    }  # fmt: skip
    return flat_event("authentication", told, at_us, number, broker_us=at_us + late_us)


def failures(minutes: Sequence[float], **values: object) -> list[SealedEvent]:
    return [
        a_failure(START + int(minute * MINUTE_US), number, **values)
        for number, minute in enumerate(minutes)
    ]


def leaves(events: Sequence[SealedEvent], first: int = 0, log_id: int = 1) -> LeafRange:
    return LeafRange(log_id, NAME, first, events)


def signals(
    events: Sequence[SealedEvent], *names: str, first: int = 0, log_id: int = 1
) -> list[Signal]:
    aggregator = Aggregator([rule(name) for name in names] or rules(), trial_hash)
    return list(aggregator.aggregate(leaves(events, first, log_id)).signals)


def counted(
    events: Sequence[SealedEvent], cuts: Sequence[int], *names: str
) -> tuple[Counters, list[Alert]]:
    counters = Counters([rule(name) for name in names] or rules())
    edges = [0, *sorted(cuts), len(events)]
    alerts = []
    for begin, end in pairwise(edges):
        alerts += counters.apply(signals(events[begin:end], *names, first=begin))
    return counters, alerts


def rows(counters: Counters) -> dict[tuple[str, str, str], list[object]]:
    return {key: row.as_plain()[2] for key, row in counters.rows.items()}


def test_a_true_window_is_never_missed_wherever_its_buckets_are() -> None:
    for shift_s in range(0, 300, 7):
        minutes = [shift_s / 60 + number * 59.9 / 19 for number in range(20)]
        _counters, alerts = counted(failures(minutes), [], "brute-force-user")
        assert [alert.values["failures"] for alert in alerts] == [20], shift_s


def test_what_is_longer_than_the_window_and_a_bucket_does_not_count() -> None:
    minutes = [number * 70 / 19 for number in range(20)]

    assert counted(failures(minutes), [], "brute-force-user")[1] == []


def test_an_alert_says_its_window_its_values_and_the_first_events() -> None:
    _counters, (alert,) = counted(failures(range(20)), [], "brute-force-user")

    assert (alert.window_start_us, alert.window_end_us) == (START, START + 19 * MINUTE_US)
    assert alert.values == {"failures": 20}
    assert alert.first_event_ids[:2] == (
        "00000000-0000-0000-0000-000000000000",
        "00000000-0000-0000-0000-000000000001",
    )
    assert alert.runbook == "docs/runbooks/detections.md#brute-force-user"


def test_an_alert_that_is_raised_again_is_the_same_one() -> None:
    events = failures(range(20))
    (first,), (again,) = (counted(events, [], "brute-force-user")[1] for _ in range(2))

    assert first.alert_id == again.alert_id


def test_dedup_is_by_group_and_in_event_time() -> None:
    once = failures([number / 2 for number in range(200)])
    two = [a_failure(event.occurred_at_us, 500, **{"actor.id": "u-2"}) for event in once]

    alerts = counted(once, [20], "brute-force-user")[1]
    both = counted(
        sorted([*once, *two], key=lambda one: one.occurred_at_us), [], "brute-force-user"
    )[1]

    times = [alert.window_end_us for alert in alerts]
    assert len(times) == 2
    assert times[1] - times[0] > rule("brute-force-user").dedup_us - 5 * MINUTE_US  # a bucket
    assert len(both) == 4


@settings(max_examples=60, deadline=None)
@given(
    minutes=st.lists(st.floats(0, 200), min_size=1, max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=6),
    again=st.lists(st.integers(0, 6), max_size=6),
    seed=st.integers(0, 99),
)
def test_any_cut_and_any_redelivery_gives_the_same_counters_and_alerts(
    minutes: list[float], cuts: list[int], again: list[int], seed: int
) -> None:
    random = Random(seed)
    events = [
        a_failure(
            START + int(minute * MINUTE_US),
            number,
            **{
                "actor.id": f"u-{random.randrange(3)}",
                "source.ip": f"192.0.2.{random.randrange(9)}",
            },
        )
        for number, minute in enumerate(sorted(minutes))
    ]
    names = ("brute-force-user", "brute-force-many-sources", "mass-data-access")
    whole, alerts = counted(events, [], *names)
    edges = sorted({0, *(min(cut, len(events)) for cut in cuts), len(events)})
    parts = [signals(events[begin:end], *names, first=begin) for begin, end in pairwise(edges)]

    counters = Counters([rule(name) for name in names])
    found = []
    for place, part in enumerate(parts):
        found += counters.apply(part)
        for earlier in again:  # redelivered, in any order, as the same range
            if earlier <= place:
                assert counters.apply(parts[earlier]) == []

    assert rows(counters) == rows(whole)
    assert sorted(alert.alert_id for alert in found) == sorted(alert.alert_id for alert in alerts)


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(6)), cuts=st.sets(st.integers(1, 59), min_size=5, max_size=5))
def test_ranges_of_several_logs_merge_in_any_order(order: list[int], cuts: set[int]) -> None:
    events = failures([number / 3 for number in range(60)])
    edges = [0, *sorted(cuts), 60]
    parts = [
        signals(events[begin:end], "brute-force-user", log_id=log_id)
        for log_id, (begin, end) in enumerate(pairwise(edges))
    ]
    counters = Counters([rule("brute-force-user")])

    alerts = [alert for place in order for alert in counters.apply(parts[place])]

    assert rows(counters) == rows(counted(events, [], "brute-force-user")[0])
    assert len(alerts) == 1


@settings(max_examples=40, deadline=None)
@given(first=st.integers(1, 58), second=st.integers(1, 58))
def test_abutting_signals_merge_to_that_of_both_in_either_grouping(first: int, second: int) -> None:
    events = failures([number / 3 for number in range(60)])
    low, high = sorted((first, second))
    edges = [0, low, max(high, low + 1), 60]
    one, two, three = (
        signals(events[begin:end], "brute-force-many-sources", first=begin)[0]
        for begin, end in pairwise(edges)
    )
    (whole,) = signals(events, "brute-force-many-sources")

    assert merge(merge(one, two), three).as_plain() == whole.as_plain()
    assert merge(one, merge(two, three)).as_plain() == whole.as_plain()
    assert merge(three, merge(two, one)).as_plain() == whole.as_plain()


def test_overlapping_ranges_are_refused_and_not_counted_in_part() -> None:
    events = failures(range(30))
    (whole,) = signals(events[:20], "brute-force-user")
    (overlapping,) = signals(events[10:30], "brute-force-user", first=10)
    row = Row()
    apply(rule("brute-force-user"), row, whole)
    before = row.as_plain()

    with pytest.raises(RangeOverlap, match="leaves 10 to 29 of log 1, and 20 is next"):
        apply(rule("brute-force-user"), row, overlapping)

    assert row.as_plain() == before
    with pytest.raises(ValueError, match="overlapping"):
        merge(whole, overlapping)


def test_a_replayed_day_raises_nothing_and_is_counted() -> None:
    events = [
        a_failure(START + number, number, late_us=LATENESS_US + 1_000) for number in range(50)
    ]
    on_time = [a_failure(START + number, number, late_us=LATENESS_US) for number in range(50)]
    aggregator = Aggregator(rules(), trial_hash)

    late, counted_ones = (aggregator.aggregate(leaves(some)) for some in (events, on_time))

    assert (late.late, list(late.signals)) == (50, [])
    assert counted_ones.late == 0
    assert Counters(rules()).apply(counted_ones.signals)


def test_events_out_of_order_complete_a_window_until_it_is_too_late() -> None:
    events = failures(range(20))
    random = Random(4)
    shuffled = random.sample(events, len(events))
    new = a_failure(START + 600 * MINUTE_US, 99)

    assert len(counted(shuffled, range(1, 20), "brute-force-user")[1]) == 1
    counters, alerts = counted([new, *events], [1], "brute-force-user")
    assert alerts == []
    assert sum(row.too_late for row in counters.rows.values()) > 0


@pytest.mark.parametrize("first", [1, 2])
def test_a_log_that_is_a_day_ahead_does_not_hide_the_night_of_another(first: int) -> None:
    night_us = START // (1_440 * MINUTE_US) * 1_440 * MINUTE_US + 150 * MINUTE_US
    told = {"tenant": "acme", "action": "project.update", "operation": "update", "outcome": "success",
            "actor.tenant": "acme", "actor.id_type": "user_id", "actor.id": "u-1"}  # fmt: skip
    by_night = [
        flat_event("admin-action", told, night_us + number * MINUTE_US, number)
        for number in range(6)
    ]
    change = {**told, "change_kind": "key", "action": "key.rotate"}
    later = [flat_event("security-change", change, night_us + 1_000 * MINUTE_US, 9)]
    logs = {1: by_night, 2: later}
    counters = Counters([rule("after-hours-administration")])

    alerts = []
    for log_id in (first, 3 - first):
        alerts += counters.apply(signals(logs[log_id], "after-hours-administration", log_id=log_id))

    assert [alert.values["events"] for alert in alerts] == [6]


def test_a_counter_is_bounded_and_says_when_it_can_go() -> None:
    events = failures([number * 2.5 for number in range(1_000)])
    counters, _alerts = counted(events, range(0, 1_000, 50), "brute-force-user")
    (row,) = counters.rows.values()
    named = rule("brute-force-user")

    assert 13 <= len(row.cells) <= CELLS_MAX
    assert len(row.to_bytes()) < 16_000
    assert expires_us(named, row) == row.newest_us + 2 * 60 * MINUTE_US + named.dedup_us


def test_what_is_learned_is_kept_as_long_as_it_is_looked_at() -> None:
    row, day_us = Row(newest_us=START), 1_440 * MINUTE_US
    kept = {one.name: expires_us(one, row) - START for one in rules()}

    assert kept["dormant-account"] > 90 * day_us
    assert kept["new-country"] > 90 * day_us
    assert kept["rate-anomaly"] > day_us
    assert kept["sequence-gap"] > day_us
    assert kept["mass-data-access"] < day_us


def test_distinct_values_are_exact_up_to_a_bound_and_near_beyond_it() -> None:
    few = BottomK({trial_hash("acme", str(number)): 1 for number in range(KEPT - 1)})
    many = BottomK({trial_hash("acme", str(number)): 1 for number in range(10_000)})

    assert few.estimate() == KEPT - 1
    assert len(many.kept) == KEPT
    assert abs(many.estimate() - 10_000) < 2_000


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.integers(0, 400), max_size=900), cut=st.integers(0, 900))
def test_sketches_merge_to_the_same_however_values_are_parted(values: list[int], cut: int) -> None:
    def sketch(some: list[int]) -> BottomK:
        kept: dict[int, int] = {}
        for value in some:
            hashed = trial_hash("acme", str(value))
            kept[hashed] = kept.get(hashed, 0) + 1
        return BottomK(kept)

    one, other, whole = sketch(values[:cut]), sketch(values[cut:]), sketch(values)
    one.merge(other)

    assert one.kept == whole.kept


def test_sequences_are_kept_as_intervals_and_points_as_the_first_and_the_last() -> None:
    points = [(at, 0) for at in range(500)]

    assert union([(0, 3), (5, 5)], [(4, 4), (9, 9)]) == [(0, 5), (9, 9)]
    assert len(union([(2 * one, 2 * one) for one in range(500)], [])) == 64
    assert trimmed(trimmed(points[:250]) + trimmed(points[250:])) == trimmed(points)
    assert len(trimmed(points)) == POINTS


def test_no_signal_and_no_counter_holds_a_personal_value() -> None:
    accepting = Accepting()
    made = labelled(1_500, seed=7, start_at_us=START, people_per_tenant=150)
    pairs = [(accepting(one.family, one.event), one.event) for one in made]
    aggregator = Aggregator(rules(), trial_hash, place_of=lambda _event: Place(52, 13, "DE"))
    found = aggregator.aggregate(leaves([event for event, _raw in pairs])).signals
    counters = Counters(rules())
    counters.apply(found)
    text = b"\n".join(
        [*(one.to_bytes() for one in found), *(one.to_bytes() for one in counters.rows.values())]
    ).decode()
    keys = "\n".join("\n".join(key) for key in counters.rows)

    assert len({key[0] for key in counters.rows}) > 15
    for _event, raw in pairs:
        personal = [raw["actor"].get(name) for name in ("id", "name", "email")]
        personal += [
            raw["source"].get(name) for name in ("ip", "user_agent", "device_id", "domain")
        ]
        personal += [target[name] for target in raw.get("targets", ()) for name in ("id", "email")]
        for value in personal:
            if value is not None and value.startswith("u-"):
                assert f'"{value}"' not in text
            elif value is not None:
                assert value not in text
                assert value not in keys


def test_signals_and_counters_survive_being_written() -> None:
    events = failures(range(20))
    for signal in signals(events):
        assert Signal.from_bytes(signal.to_bytes()).as_plain() == signal.as_plain()
    counters, _alerts = counted(events, [7])
    for row in counters.rows.values():
        assert Row.from_bytes(row.to_bytes()).as_plain() == row.as_plain()
    with pytest.raises(ValueError, match="version"):
        Row.from_bytes(b"[0,[],[],{},null,0,0]")


def test_signals_travel_together_and_each_counter_has_one_shard() -> None:
    found = signals(failures(range(20)), *(one.name for one in rules()))

    assert [one.as_plain() for one in unpack(pack(found))] == [one.as_plain() for one in found]
    assert {shard(one.key, 4) for one in found} <= {0, 1, 2, 3}
    assert shard(("brute-force-user", "acme", "00ff"), 1_000) == 901


def test_a_counter_that_was_written_and_read_goes_on_as_it_was() -> None:
    events = failures(range(20))
    row = Row()
    named = rule("brute-force-user")
    alerts = []
    for number, event in enumerate(events):
        (signal,) = signals([event], named.name, first=number)
        row = Row.from_bytes(row.to_bytes())
        alerts += apply(named, row, Signal.from_bytes(signal.to_bytes()))

    assert len(alerts) == 1


def test_an_event_that_no_rule_wants_leaves_nothing() -> None:
    event = flat_event("profile-update", {"tenant": "acme", "action": "profile.update"}, START, 1)

    assert signals([event], "brute-force-user", "mass-delete") == []


def test_dead_letters_are_counted_by_topic_and_rows_that_come_again_are_not() -> None:
    named = rule("dead-letter-spike")
    aggregator = Aggregator([named], trial_hash)
    counters = Counters([named])
    told = IntakeCounts(3, "audit.raw.system", 0, 1_000, START, 850, {"malformed": 150})

    first, again = (counters.apply(aggregator.intake(told)) for _ in range(2))

    assert [(one.group, one.values["dead"]) for one in first] == [("audit.raw.system", 150)]
    assert again == []


def test_what_a_tenant_overrides_holds_for_it_alone() -> None:
    named = replace(rule("brute-force-user"), overrides={"acme": {"failures": 5.0}})
    aggregator, counters = Aggregator([named], trial_hash), Counters([named])
    events = [
        a_failure(START + number * MINUTE_US, number, tenant=tenant)
        for tenant in ("acme", "globex")
        for number in range(6)
    ]

    alerts = counters.apply(aggregator.aggregate(leaves(events)).signals)

    assert [alert.tenant for alert in alerts] == ["acme"]


def test_distances_and_hours_are_right() -> None:
    assert 16_000 < distance_km((53, 13), (-34, 151)) < 16_200
    assert hour_slot(0) == "d0"  # Thursday
    assert hour_slot(2 * 24 + 7) == "w7"
    assert hour_slot(4 * 24 + 7) == "d7"
