"""Bundles: what an honest one says, and that each part of one that was tampered with is refused by name."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import verifier
from pipeline.compliance.bundle_writer import MANIFEST, SIGNATURE
from pipeline.compliance.export import ExportSummary
from pipeline.compliance.export_filters import ExportFilters
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import LogName
from pipeline.keys.note_keys import Cosigner
from tests.export_support import (
    EXPORTER,
    KEYS,
    LOG,
    OCCURRED_AT_US,
    OTHER_LOG,
    STRANGER,
    LogsInMemory,
    OpensAll,
    a_bundle,
    a_checkpoint,
    a_log,
    members_of,
    packed,
    repacked,
    verified,
)

FIRST = f"{LOG}/0000000000000000000"
EVENTS, OPENED = f"events/{FIRST}.ndjson.gz", f"opened/{FIRST}.ndjson.gz"
NEWEST = f"checkpoints/{LOG}/0000000000000000090"
OLDER = f"checkpoints/{LOG}/0000000000000000033"
EXPORTERS = [verifier.parse_key(str(EXPORTER.verifier))]

Change = Callable[[dict[str, bytes], dict[str, Any]], None]


@pytest.fixture(scope="module")
def reader() -> LogsInMemory:
    logs = {LOG: a_log(90), OTHER_LOG: a_log(20, log=OTHER_LOG)}
    return LogsInMemory(logs, {LOG: [33, 64, 90], OTHER_LOG: [20]})


@pytest.fixture(scope="module")
def bundle(reader: LogsInMemory) -> bytes:
    return a_bundle(reader, opener=OpensAll())


@pytest.mark.parametrize("opener", [None, OpensAll])
@pytest.mark.parametrize("events_format", ["ndjson", "avro"])
def test_an_honest_bundle_verifies_and_says_what_is_complete(
    reader: LogsInMemory, events_format: str, opener: Any
) -> None:
    report = verified(a_bundle(reader, events_format=events_format, opener=opener and opener()))

    assert report.problems == []
    assert report.statements == [
        f"{LOG}: 90 events, complete from leaf 0 to 89 of 90",
        f"{OTHER_LOG}: 20 events, complete from leaf 0 to 19 of 20",
    ]
    assert report.values == (330 if opener else 0)


def test_the_same_export_gives_the_same_bytes(reader: LogsInMemory) -> None:
    assert a_bundle(reader) == a_bundle(reader)


def test_the_trail_is_told_of_the_content_before_the_bundle_has_its_manifest(
    reader: LogsInMemory,
) -> None:
    announced: list[ExportSummary] = []

    bundle = a_bundle(reader, announced=announced)

    (summary,) = announced
    manifest = verified(bundle).manifest
    assert summary.events == {"acme": 110}
    assert summary.content_sha256 == manifest["content_sha256"]
    assert manifest["trail_events"].keys() == {"acme"}


@settings(max_examples=25)
@given(data=st.data(), size=st.integers(1, 300))
def test_any_choice_of_leaves_is_proven_and_only_a_range_is_called_complete(
    data: st.DataObject, size: int
) -> None:
    chosen = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    tenants = ["acme" if leaf in chosen else "globex" for leaf in range(size)]
    reader = LogsInMemory({LOG: a_log(size, tenants=tenants)})

    report = verified(a_bundle(reader, ExportFilters(tenants=("acme",))))

    first, last = min(chosen), max(chosen)
    contiguous = len(chosen) == last - first + 1
    assert report.problems == []
    assert ("complete" in report.statements[0]) == contiguous
    assert report.manifest["logs"][0]["complete"] == contiguous


def test_a_period_and_an_action_are_claims_that_are_checked(reader: LogsInMemory) -> None:
    filters = ExportFilters(
        all_tenants=True,
        from_us=OCCURRED_AT_US + 10_000_000,
        to_us=OCCURRED_AT_US + 20_000_000,
        actions=("session.start",),
    )

    report = verified(a_bundle(reader, filters))

    assert report.problems == []
    assert (
        report.statements[0] == f"{LOG}: 5 events, others may be left out, from leaf 11 to 19 of 90"
    )


def test_any_avro_library_reads_the_events(reader: LogsInMemory) -> None:
    members = members_of(a_bundle(reader, events_format="avro"))

    rows = list(fastavro.reader(io.BytesIO(members[f"events/{FIRST}.avro"])))

    assert [row["leaf_index"] for row in rows] == list(range(90))


def test_tar_and_gzip_read_a_bundle(bundle: bytes, tmp_path: Path) -> None:
    (tmp_path / "bundle.tar").write_bytes(bundle)

    subprocess.run(["tar", "-xf", "bundle.tar"], cwd=tmp_path, check=True)

    lines = gzip.decompress((tmp_path / EVENTS).read_bytes()).splitlines()
    assert [json.loads(line)["leaf_index"] for line in lines] == list(range(90))


@settings(max_examples=300)
@given(data=st.data())
def test_no_byte_can_be_changed_unseen(bundle: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(bundle) - 1))
    flip = data.draw(st.integers(1, 255))

    changed = bundle[:at] + bytes([bundle[at] ^ flip]) + bundle[at + 1 :]

    assert verified(changed).problems


@settings(max_examples=60)
@given(data=st.data())
def test_a_bundle_that_is_cut_or_goes_on_is_refused(bundle: bytes, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(bundle) - 1))

    assert verified(bundle[:end]).problems
    assert verified(bundle + bundle[end:]).problems


@pytest.mark.parametrize("name", ["README.txt", EVENTS, OPENED, NEWEST, OLDER, "schemas/7.avsc"])
def test_a_changed_member_is_named(bundle: bytes, name: str) -> None:
    members = members_of(bundle)
    body = members[name]
    members[name] = body[:-1] + bytes([body[-1] ^ 1])

    assert (
        f"{name}: it is not the member that the manifest lists"
        in verified(packed(members.items())).problems
    )


def test_a_member_too_few_or_too_many_and_another_order_are_named(bundle: bytes) -> None:
    members = members_of(bundle)
    without = {name: body for name, body in members.items() if name != "schemas/7.avsc"}
    beyond = {"note.txt": b"trust me", **members}
    order = dict(sorted(members.items(), reverse=True))

    assert "schemas/7.avsc: it is not in the bundle" in verified(packed(without.items())).problems
    assert any("note.txt" in problem for problem in verified(packed(beyond.items())).problems)
    assert any("order" in problem for problem in verified(packed(order.items())).problems)
    twice = [*members.items(), *members.items()]
    assert verified(packed(twice)).problems == [
        f"bundle: header {len(members) + 1} is none, or comes twice"
    ]


def test_who_signs_is_whom_the_auditor_named(bundle: bytes) -> None:
    stranger = [verifier.parse_key(str(STRANGER.verifier))]

    problems = verified(bundle, stranger).problems

    assert f"{SIGNATURE}: no key that you named has signed it" in problems
    assert any(problem.startswith(f"checkpoints/{LOG}/") for problem in problems)


def test_the_exporter_may_be_another_than_who_signs_logs(reader: LogsInMemory) -> None:
    bundle = a_bundle(reader, signer=EXPORTER)

    assert verified(bundle).problems == [f"{SIGNATURE}: no key that you named has signed it"]
    assert verified(bundle, KEYS, EXPORTERS).problems == []
    assert verified(a_bundle(reader), KEYS, EXPORTERS).problems


def test_a_signature_of_another_manifest_is_refused(reader: LogsInMemory, bundle: bytes) -> None:
    members = members_of(bundle)
    members[SIGNATURE] = members_of(a_bundle(reader))[SIGNATURE]

    assert verified(packed(members.items())).problems == [
        f"{SIGNATURE}: it is not of this {MANIFEST}"
    ]


def test_a_checkpoint_is_no_signature_of_a_manifest(bundle: bytes) -> None:
    members = members_of(bundle)
    members[SIGNATURE] = members[NEWEST]

    assert verified(packed(members.items())).problems == [
        f"{SIGNATURE}: it is not of this {MANIFEST}"
    ]


# From here on the exporter lies: whoever may sign manifests, and not checkpoints.


def lines_of(packed_lines: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(packed_lines).splitlines()]


def replaced(name: str, old: bytes, new: bytes) -> Change:
    def change(members: dict[str, bytes], _manifest: dict[str, Any]) -> None:
        plain = gzip.decompress(members[name])
        assert old in plain
        members[name] = gzip.compress(plain.replace(old, new, 1))

    return change


def without_line(name: str, at: int) -> Change:
    def change(members: dict[str, bytes], _manifest: dict[str, Any]) -> None:
        lines = gzip.decompress(members[name]).splitlines(keepends=True)
        del lines[at]
        members[name] = gzip.compress(b"".join(lines))

    return change


def swapped(members: dict[str, bytes], _manifest: dict[str, Any]) -> None:
    lines = gzip.decompress(members[EVENTS]).splitlines(keepends=True)
    lines[3], lines[4] = lines[4], lines[3]
    members[EVENTS] = gzip.compress(b"".join(lines))


def rehashed(members: dict[str, bytes], _manifest: dict[str, Any]) -> None:
    """Another event, with a leaf hash that is its own."""
    lines = gzip.decompress(members[EVENTS]).splitlines()
    row = json.loads(lines[5])
    entry = lines[5].partition(b',"event":')[2][:-1].replace(b"session.start", b"session.stop")
    line = lines[5].partition(b',"event":')[0] + b',"event":' + entry + b"}"
    lines[5] = line.replace(row["leaf_hash"].encode(), verifier.leaf_hash(entry).hex().encode())
    members[EVENTS] = gzip.compress(b"\n".join(lines) + b"\n")


def member(name: str, body: bytes) -> Change:
    def change(members: dict[str, bytes], _manifest: dict[str, Any]) -> None:
        assert name in members
        members[name] = body

    return change


def added(name: str, like: str) -> Change:
    """One more member, which the manifest lists."""

    def change(members: dict[str, bytes], _manifest: dict[str, Any]) -> None:
        assert name not in members
        members[name] = members[like]

    return change


def dropped(name: str) -> Change:
    def change(members: dict[str, bytes], _manifest: dict[str, Any]) -> None:
        del members[name]

    return change


def claims(*path: Any, value: Any) -> Change:
    def change(_members: dict[str, bytes], manifest: dict[str, Any]) -> None:
        found: Any = manifest
        for step in path[:-1]:
            found = found[step]
        found[path[-1]] = value

    return change


OF_SIGNER_33 = a_checkpoint(LOG, a_log(33))
LIES: dict[str, tuple[Change, str]] = {
    "an event's bytes": (
        replaced(EVENTS, b'"action":"session.end"', b'"action":"session.eat"'),
        f"{EVENTS} leaf 0: its bytes are not those that were hashed",
    ),
    "an event and its hash": (rehashed, "do not lead to the root of 90 leaves"),
    "an event left out in the middle": (without_line(EVENTS, 7), f"proofs/{LOG}"),
    "the last event left out": (without_line(EVENTS, 89), f"proofs/{LOG}"),
    "events in another order": (swapped, "leaf 3: it is out of order"),
    "the time beside an event": (
        replaced(
            EVENTS, b'"occurred_at":1764000000000000,"st', b'"occurred_at":1764000000000001,"st'
        ),
        "leaf 0: what stands beside the event is not what it says",
    ),
    "a field that nobody knows": (
        replaced(EVENTS, b'"source_offset"', b'"source_offsets"'),
        f"{EVENTS}: it is not a file of events",
    ),
    "events that are no gzip": (member(EVENTS, b"events"), f"{EVENTS}: it does not inflate"),
    "the newest checkpoint of a stranger": (
        member(NEWEST, a_checkpoint(LOG, a_log(90), STRANGER)),
        f"{NEWEST}: no key that you named has signed it",
    ),
    "a checkpoint of another log": (
        member(NEWEST, a_checkpoint(LogName("audit.raw.authentication", 0, 2), a_log(90))),
        f"{NEWEST}: it is of another log or size",
    ),
    "a checkpoint of another size": (
        member(NEWEST, OF_SIGNER_33),
        f"{NEWEST}: it is of another log or size",
    ),
    "a checkpoint of another history": (
        member(OLDER, a_checkpoint(LOG, a_log(33, tenants=["globex"]))),
        "64 leaves do not begin with those 33",
    ),
    "a checkpoint that is none": (member(NEWEST, b"x\n\n"), f"{NEWEST}: it is not a text with"),
    "a proof of consistency that is missing": (
        member(f"consistency/{LOG}.json", b'{"proofs":[]}'),
        "bundle: something in it is not of the form",
    ),
    "no proof of consistency": (
        dropped(f"consistency/{LOG}.json"),
        f"consistency/{LOG}.json: it is not in the bundle",
    ),
    "an opened value": (
        replaced(OPENED, b'"actor.id":"u-3"', b'"actor.id":"u-4"'),
        f"{EVENTS} leaf 3: the value of actor.id is not the one that was sealed",
    ),
    "an opened value left out": (
        replaced(OPENED, b'"actor.id":"u-3",', b""),
        "leaf 3: what is opened of 00000000-0000-0000-0000-000000000007 is not what it sealed",
    ),
    "values of an event that is not there": (
        replaced(OPENED, b'"leaf_index":89', b'"leaf_index":91'),
        f"{OPENED}: it opens values of leaves that are not in {EVENTS}",
    ),
    "fewer opened values than claimed": (
        dropped(OPENED),
        f"{MANIFEST}: other schemas or opened values than it claims",
    ),
    "a schema too few": (dropped("schemas/7.avsc"), "schemas/7.avsc: it is not in the bundle"),
    "another schema": (
        claims("schemas", 0, "id", value=8),
        "schemas/8.avsc: it is not in the bundle",
    ),
    "another number of events": (
        claims("logs", 0, "events", value=91),
        f"{MANIFEST}: it claims other events of {LOG}",
    ),
    "another range": (
        claims("logs", 0, "last_leaf", value=90),
        f"{MANIFEST}: it claims other events of {LOG}",
    ),
    "that it is not complete": (
        claims("logs", 0, "complete", value=False),
        f"{MANIFEST}: it claims other events of {LOG}",
    ),
    "a tenant whose events these are not": (
        claims("filters", "tenants", value=["globex"]),
        "the filters of the manifest do not let it in: ['tenants']",
    ),
    "a person whose events these are not": (
        claims("filters", "subjects", value=["00000000-0000-0000-0000-000000000008"]),
        "the filters of the manifest do not let it in: ['subjects']",
    ),
    "a period in which they did not occur": (
        claims("filters", "to", value=OCCURRED_AT_US + 1),
        "leaf 1: the filters of the manifest do not let it in: period",
    ),
    "another version": (
        claims("version", value=2),
        f"{MANIFEST}: it is not audit-trail-export, version 1",
    ),
    "another origin": (
        claims("origin", value="audit.example.net"),
        f"{OLDER}: it is of another log or size",
    ),
    "events of a log that it does not list": (
        added("events/audit.raw.admin-action/9/1/0.ndjson.gz", EVENTS),
        "no log that it lists has these: ['events/audit.raw.admin-action/9/1/0.ndjson.gz']",
    ),
    "opened values of a part that it does not have": (
        added(f"opened/{LOG}/7.ndjson.gz", EVENTS),
        f"no log that it lists has these: ['opened/{LOG}/7.ndjson.gz']",
    ),
    "a checkpoint that it does not list": (
        added(f"checkpoints/{LOG}/{44:019d}", OLDER),
        "no log that it lists has these",
    ),
    "a log twice": (
        lambda _members, manifest: manifest["logs"].append(manifest["logs"][0]),
        f"{MANIFEST}: it lists a log twice",
    ),
    "a manifest without its parts": (
        lambda _members, manifest: manifest.pop("logs"),
        "bundle: something in it is not of the form of its version",
    ),
}


@pytest.mark.parametrize(("change", "named"), LIES.values(), ids=LIES.keys())
def test_a_lie_of_whoever_exports_is_named(bundle: bytes, change: Change, named: str) -> None:
    problems = verified(repacked(bundle, change), KEYS, EXPORTERS).problems

    assert any(named in problem for problem in problems), problems


def test_what_nobody_changed_verifies_when_it_is_packed_again(bundle: bytes) -> None:
    same = repacked(bundle, lambda _members, _manifest: None)

    assert verified(same, KEYS, EXPORTERS).problems == []


def test_a_problem_of_one_log_hides_none_of_another(bundle: bytes) -> None:
    def change(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
        rehashed(members, manifest)
        members[f"checkpoints/{OTHER_LOG}/{20:019d}"] = OF_SIGNER_33

    problems = verified(repacked(bundle, change), KEYS, EXPORTERS).problems

    assert len([problem for problem in problems if str(LOG) in problem]) == 1
    assert len([problem for problem in problems if str(OTHER_LOG) in problem]) == 1


def test_problems_are_listed_up_to_a_bound(bundle: bytes) -> None:
    report = verifier.Report()

    for number in range(verifier.PROBLEMS_MAX + 50):
        report.problem(number)

    assert len(report.problems) == verifier.PROBLEMS_MAX + 1
    assert report.problems[-1] == "more"


def test_a_witness_that_the_auditor_named_must_have_cosigned(bundle: bytes) -> None:
    witness = Cosigner("witness.example.net", bytes(range(2, 34)))
    key = verifier.parse_key(str(witness.verifier))

    def cosign(members: dict[str, bytes], _manifest: dict[str, Any]) -> None:
        for name in (NEWEST, f"checkpoints/{OTHER_LOG}/{20:019d}"):
            text = members[name].decode().rpartition("\n\n")[0] + "\n"
            members[name] += witness.cosign(text, at_s=1_764_000_000).line.encode()

    refused = verified(bundle, [*KEYS, key]).problems
    assert f"{NEWEST}: the witness witness.example.net has not cosigned it" in refused
    assert verified(repacked(bundle, cosign), [*KEYS, key], EXPORTERS).problems == []


def test_filters_that_say_nothing_or_too_much_are_refused() -> None:
    for wrong in (
        {},
        {"tenants": ("acme",), "all_tenants": True},
        {"all_tenants": True, "families": ("nonsense",)},
        {"all_tenants": True, "from_us": 2, "to_us": 2},
        {"all_tenants": True, "from_leaf": 1},
    ):
        with pytest.raises(ConfigurationError):
            ExportFilters(**wrong)  # type: ignore[arg-type]
