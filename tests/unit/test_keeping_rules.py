"""Rules of holds, redaction and expiry that need no server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import avro_schemas
from pipeline.codec import wire
from pipeline.compliance.candidates import RUN_LEAVES, runs
from pipeline.compliance.patterns import FieldRule, data_class, is_card_number, path_matches
from pipeline.compliance.policy_file import RedactionPolicy, read_policies
from pipeline.compliance.retention import Rules, due, worth_a_look
from pipeline.compliance.trail_events import Announcer, Operator, authority_event
from pipeline.compliance.yaml_subset import parse
from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.domain.merkle import merkle_root
from pipeline.domain.orders import EXPIRY, REDACTION, Expiry, Order, affected_root, decode_order
from pipeline.entrypoints.cli.restoring import period_of
from pipeline.importers.encode import EventEncoder
from pipeline.keys.seal import open_blob, seal, seal_values
from pipeline.keys.subjects import SubjectKey
from pipeline.testing import read_as_worker
from sinks.expiring import Scope
from sinks.retention import Contents, Month, RetentionPolicy

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 27, tzinfo=UTC)
MARCH = Month(datetime(2021, 3, 1, tzinfo=UTC), 10, 1_000)


@pytest.mark.parametrize(
    ("pattern", "path", "takes"),
    [
        ("changes.*", "changes.0.old", True),
        ("changes.*.new", "changes.12.new", True),
        ("changes.*.new", "changes.12.old", False),
        ("actor.email", "actor.email", True),
        ("actor", "actor.email", True),
        ("actor.email", "actor", False),
        ("act", "actor.email", False),
        ("*.email", "actor.email", True),
        ("labels", "labels", True),
    ],
)
def test_a_pattern_takes_a_path_and_what_begins_with_it(
    pattern: str, path: str, takes: bool
) -> None:
    assert path_matches(pattern, path) is takes


@pytest.mark.parametrize(
    ("text", "card"),
    [
        ("4111 1111 1111 1111", True),
        ("paid with 5500-0000-0000-0004.", True),
        ("378282246310005", True),
        ("4111 1111 1111 1112", False),
        ("0000000000000000", False),
        ("12345678901", False),
        ("order 41111111111111111111111", False),
    ],
)
def test_a_card_number_is_known_by_its_check_digit(text: str, card: bool) -> None:
    assert is_card_number(text) is card


def test_a_rule_takes_values_by_path_class_and_look() -> None:
    opened = {
        "actor.email": "a@example.org",
        "changes.0.old": "4111111111111111",
        "changes.1.old": "Bonn",
        "labels": {"card": "4111111111111111"},
    }

    def chosen(*words: Any) -> tuple[str, ...]:
        return FieldRule(*words).chosen("profile-update", opened)

    assert chosen(("changes.*",)) == ("changes.0.old", "changes.1.old")
    assert chosen((), (), "card-number") == ("changes.0.old", "labels")
    assert chosen((), ("target",)) == ("changes.0.old", "changes.1.old")
    assert chosen((), (), "email") == ("actor.email",)
    assert chosen(("actor",), ("target",)) == ()
    assert chosen((), (), "re:^Bo") == ("changes.1.old",)


def test_a_path_that_this_release_does_not_know_is_the_actors() -> None:
    assert data_class("profile-update", "brand.new.field") == "actor"
    assert data_class("profile-update", "targets.3.id") == "target"


@pytest.mark.parametrize(
    "rule",
    [
        FieldRule(),
        FieldRule(("Changes",)),
        FieldRule(("a..b",)),
        FieldRule((), ("owner",)),
        FieldRule((), (), "phone"),
        FieldRule((), (), "re:("),
    ],
)
def test_a_rule_that_says_nothing_or_nothing_sensible_is_refused(rule: FieldRule) -> None:
    with pytest.raises(ConfigurationError):
        rule.check()


def test_the_sample_policies_are_read_as_a_complete_yaml_reader_reads_them() -> None:
    for file in sorted((ROOT / "samples/policies").glob("*.yaml")):
        text = file.read_text(encoding="utf-8")

        assert parse(text, "x") == yaml.safe_load(text)
        for policy in read_policies(file):
            stored = json.loads(json.dumps(policy.as_dict()))
            assert RedactionPolicy.from_dict(stored) == policy


_scalars = st.one_of(
    st.integers(-99, 999),
    st.booleans(),
    st.text(st.characters(codec="ascii", exclude_characters="\t"), max_size=12),
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8),
)
_lists = st.lists(_scalars.filter(lambda one: not isinstance(one, bool)), min_size=1, max_size=4)
_documents = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.one_of(_scalars, _lists), min_size=1
)


@given(document=_documents, style=st.sampled_from([None, True, False]))
def test_what_is_read_is_what_yaml_says_or_it_is_refused(
    document: dict[str, Any], style: bool | None
) -> None:
    text = yaml.safe_dump(document, default_flow_style=style, allow_unicode=True, width=10_000)

    try:
        read = parse(text, "x")
    except ConfigurationError:
        return

    assert read == yaml.safe_load(text)


@given(text=st.text(st.sampled_from("ab: -[],#'\"\n\\1y~&*!|>%@"), max_size=40))
def test_no_text_means_another_thing_here_than_to_yaml(text: str) -> None:
    try:
        read = parse(text, "x")
    except ConfigurationError:
        return

    assert read == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("policies: []", "policies is not a list"),
        ("other: 1", "the member policies"),
        ("policies:\n  - name: A\n    reason: x\n    older_than_days: 1", "name is not"),
        ("policies:\n  - name: a\n    older_than_days: 1", "reason is missing"),
        ("policies:\n  - name: a\n    reason: x", "older_than_days"),
        ("policies:\n  - name: a\n    reason: x\n    older_than_days: 1", "names fields"),
        (
            "policies:\n  - name: a\n    reason: x\n    older_than_days: 1\n    feilds: [b]",
            "no such member: feilds",
        ),
        ("policies:\n  - &a name: b", "quote this value|not `name: value`"),
    ],
)
def test_a_policy_file_that_is_wrong_is_told_why(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigurationError, match=complaint):
        read_policies(file)


def an_order(**changes: Any) -> Order:
    facts: dict[str, Any] = {
        "request_id": UUID(int=5),
        "kind": REDACTION,
        "tenant": "acme",
        "reason": "a test",
        "requested_at_us": 1_760_000_000_000_000,
        "count": 2,
        "root": affected_root([b"a" * 32, b"b" * 32]),
        "leaves": {"audit.raw.data-access/0/1": [(3, ("actor.email",)), (9, ("labels",))]},
    }
    return Order(**{**facts, **changes})


@pytest.mark.parametrize(
    "order",
    [
        an_order(),
        an_order(
            kind=EXPIRY,
            tenant=None,
            leaves={},
            expiry=Expiry("2021-03", 30, 5, {"audit.raw.data-access/0/1": 7}),
        ),
    ],
)
def test_an_order_is_read_back_as_it_was_written(order: Order) -> None:
    again = decode_order(order.encode())

    assert (again, again.hash()) == (order, order.hash())


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"v":2}', b"\xff"])
def test_what_is_no_order_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        decode_order(body)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70))
def test_the_root_over_affected_leaves_is_that_of_the_naive_tree(hashes: list[bytes]) -> None:
    assert affected_root(hashes) == merkle_root(hashes)


def test_the_event_that_is_an_orders_authority_is_one_that_the_worker_takes() -> None:
    order = an_order()
    event = authority_event(order, Operator("ann@desk", "acme"), tenant="acme")

    record = EventEncoder({"system": 3}).encode("system", event)

    assert record.topic == "audit.raw.system"
    read = read_as_worker("system", record.value)
    assert read["authority.request_id"] == str(order.request_id)
    assert read["authority.root"] == order.root.hex()
    assert read["authority.order_hash"] == order.hash().hex()
    assert read["event_id"] == str(order.event_id)
    assert len(record.value) > wire.HEADER_BYTES
    assert authority_event(order, Operator("ann@desk", "acme"), tenant="acme") == event


@pytest.mark.anyio
async def test_an_announcement_waits_for_its_leaf_and_is_made_once() -> None:
    published: list[UUID] = []
    looks = iter([False, False, False, True])

    async def publish(event: Any) -> None:
        published.append(UUID(event["event_id"]))

    async def in_ledger(_event: UUID) -> bool:
        return next(looks)

    async def sleep(_s: float) -> None: ...

    event = {"event_id": str(uuid4())}
    announce = Announcer(publish, in_ledger, wait_s=5, sleep=sleep)
    await announce(event)
    looks = iter([True])
    await announce(event)

    assert len(published) == 1


@pytest.mark.anyio
async def test_an_announcement_that_nobody_stores_is_an_outage() -> None:
    clock = iter(range(0, 1_000, 10))

    async def publish(_event: Any) -> None: ...

    async def in_ledger(_event: UUID) -> bool:
        return False

    async def sleep(_s: float) -> None: ...

    announce = Announcer(publish, in_ledger, wait_s=30, sleep=sleep, monotonic=lambda: next(clock))
    with pytest.raises(Unavailable, match="does a worker run"):
        await announce({"event_id": str(uuid4())})


def test_a_blob_after_a_cut_opens_and_has_another_nonce() -> None:
    key, event_id = SubjectKey(UUID(int=7), b"k" * 32), UUID(int=9).bytes
    values = {"actor.email": "a@example.org", "actor.id": "u-1"}
    before = seal("authentication", event_id, {}, [(key, values)]).blobs[0]

    after = seal_values(key, event_id, {"actor.id": "u-1"})

    assert open_blob(key, event_id, after) == {"actor.id": "u-1"}
    assert (after.subject_ref, after.nonce == before.nonce) == (before.subject_ref, False)


def contents(tenant: str = "acme", class_: str = "", **changes: Any) -> Contents:
    stored = datetime(2021, 3, 20, tzinfo=UTC)
    facts: dict[str, Any] = {
        "log_id": 1,
        "log": "audit.raw.data-access/0/1",
        "tenant": tenant,
        "class_": class_,
        "events": 5,
        "next_leaf": 50,
        "first_stored_at": stored,
        "last_stored_at": stored,
    }
    return Contents(**{**facts, **changes})


def rules(*policies: tuple[str, str, int], default: int = 365) -> Rules:
    made = [RetentionPolicy(tenant, class_, days, "test") for tenant, class_, days in policies]
    return Rules.of(made, {"globex": 4_000}, default)


def test_the_class_outranks_the_tenant_and_the_tenant_the_default() -> None:
    chosen = rules(("acme", "", 100), ("acme", "short", 10))

    assert chosen.days("acme", "short") == 10
    assert chosen.days("acme", "standard") == 100
    assert chosen.days("globex", "short") == 4_000
    assert chosen.days("initech", "") == 365
    assert chosen.shortest_days == 10


def test_a_month_goes_when_its_longest_retention_has_passed_by_both_times() -> None:
    [one] = due(MARCH, [contents()], rules(), [], NOW)
    assert (one.scope, one.days) == (Scope(MARCH.start), 365)
    assert one.bounds == {"audit.raw.data-access/0/1": 50}

    late = contents(last_stored_at=NOW - timedelta(days=364))
    [blobs] = due(MARCH, [late], rules(), [], NOW)
    assert blobs.scope.tenant == "acme"
    young = contents(first_stored_at=late.last_stored_at, last_stored_at=late.last_stored_at)
    assert due(MARCH, [young], rules(), [], NOW) == []


def test_a_month_stays_for_its_longest_and_of_the_others_the_blobs_go() -> None:
    found = due(MARCH, [contents(), contents("globex")], rules(), [], NOW)

    assert [(one.scope.tenant, one.days) for one in found] == [("acme", 365)]
    assert found[0].scope.stored_until == NOW - timedelta(days=365)


@given(age_days=st.integers(0, 4_000), stored_days=st.integers(0, 4_000))
def test_nothing_is_due_before_its_retention_by_either_time(
    age_days: int, stored_days: int
) -> None:
    stored = NOW - timedelta(days=stored_days)
    start = (NOW - timedelta(days=age_days)).replace(day=1)
    month = Month(start, 1, 1)
    part = contents(first_stored_at=stored, last_stored_at=stored)

    found = due(month, [part], rules(), [], NOW)

    past = Scope(start).end + timedelta(days=365) <= NOW and stored_days >= 365
    assert bool(found) is past
    assert not found or worth_a_look(month, rules(), NOW)


@given(st.sets(st.integers(0, 5_000), max_size=300))
def test_runs_are_the_indexes_again(indexes: set[int]) -> None:
    found = runs(sorted(indexes))

    assert [one for first, count in found for one in range(first, first + count)] == sorted(indexes)
    assert all(count <= RUN_LEAVES for _first, count in found)


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("2026-03", "2026-03-01", "2026-04-01"),
        ("2025-12", "2025-12-01", "2026-01-01"),
        ("2026-03-01..2026-03-01", "2026-03-01", "2026-03-02"),
    ],
)
def test_a_period_is_a_month_or_days(text: str, since: str, until: str) -> None:
    assert [time.date().isoformat() for time in period_of(text)] == [since, until]


@pytest.mark.parametrize("text", ["", "2026", "2026-13", "2026-03-02..2026-03-01", "2026-03-99..x"])
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        period_of(text)


def test_every_operation_that_people_do_has_its_symbol() -> None:
    [operation] = [leaf for leaf in avro_schemas.leaves("system") if leaf.path == "operation"]

    assert {"redaction", "expiry", "hold", "access", "configuration"} <= set(operation.symbols)
