"""Write `sdk/conformance/vectors.json`: what every SDK must do with an event, byte for byte.

Bodies come from the pipeline's own Avro writer and partitions from the hash below, neither of which
an SDK has a part in; what is wrong with an invalid event is written down here by hand.
`--check` writes nothing and exits 1 if the file is stale.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from typing import Any

from generated import ROOT, keep_current

import avro_schemas
from pipeline.generator.load import generate
from pipeline.importers.encode import EventEncoder

VECTORS = ROOT / "sdk" / "conformance" / "vectors.json"
PARTITIONS = 4
SCHEMA_ID = 258  # both of its last bytes count

Event = dict[str, Any]


def main() -> int:
    """The exit status."""
    text = json.dumps(vectors(), ensure_ascii=True, indent=1) + "\n"
    return keep_current(__doc__, {VECTORS: text})


def vectors() -> dict[str, Any]:
    """The file's content."""
    return {
        "doc": "Made by scripts/make_vectors.py. value = wire format (magic, schema id, Avro body), hex.",
        "schema_id": SCHEMA_ID,
        "partitions": PARTITIONS,
        "valid": [_valid(name, family, event) for name, family, event in valid_events()],
        "invalid": [
            {"name": name, "family": family, "event": event, "problems": problems}
            for name, family, event, problems in invalid_events()
        ],
    }


def _valid(name: str, family: str, event: Event) -> dict[str, Any]:
    encoder = EventEncoder(dict.fromkeys(avro_schemas.families(), SCHEMA_ID))
    record = encoder.encode(family, _sorted_maps(event))
    return {
        "name": name,
        "family": family,
        "event": event,
        "topic": record.topic,
        "key": record.key.decode(),
        "partition": murmur2(record.key) % PARTITIONS,
        "value": record.value.hex(),
    }


def _sorted_maps(event: Event) -> Event:
    """Maps in the order in which SDKs write them: by their keys' UTF-8 bytes."""
    ordered = copy.deepcopy(event)
    for name in ("labels", "metadata"):
        if name in ordered:
            entries = sorted(ordered[name].items(), key=lambda entry: entry[0].encode())
            ordered[name] = dict(entries)
    return ordered


def murmur2(key: bytes) -> int:
    """Kafka's default partitioner's hash, made positive. Source: Apache Kafka, ``Utils.murmur2``."""
    mask, mix = 0xFFFFFFFF, 0x5BD1E995
    digest = (0x9747B28C ^ len(key)) & mask
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        part = int.from_bytes(key[at : at + 4], "little") * mix & mask
        part = (part ^ part >> 24) * mix & mask
        digest = (digest * mix & mask) ^ part
    rest = key[whole:]
    if rest:
        digest = (digest ^ int.from_bytes(rest, "little")) * mix & mask
    digest = (digest ^ digest >> 13) * mix & mask
    return (digest ^ digest >> 15) & 0x7FFFFFFF


def sample(family: str) -> Event:
    """The sample with every field."""
    text = (ROOT / "samples" / "events" / f"{family}.json").read_text(encoding="utf-8")
    event: Event = json.loads(text)["event"]
    return event


def smallest() -> Event:
    """Only what is required, of data-access."""
    text = (ROOT / "samples" / "audit_log_example.json").read_text(encoding="utf-8")
    event: Event = json.loads(text)["event"]
    return event


def changed(event: Event, **changes: Any) -> Event:
    """A copy with values at paths: ``actor__id`` is ``actor.id``; ``...`` removes."""
    event = copy.deepcopy(event)
    for path, value in changes.items():
        *way, last = path.split("__")
        place: Any = event
        for name in way:
            place = place[int(name)] if name.isdigit() else place[name]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return event


def valid_events() -> Iterator[tuple[str, str, Event]]:
    """(name, family, event)."""
    for family in avro_schemas.families():
        yield f"every field of {family}", family, sample(family)
    one = smallest()
    family = "data-access"
    yield "only what is required", family, one
    yield "an anonymous actor", family, changed(one, actor__id=None, actor__type="anonymous")
    yield "no id at all", family, changed(one, actor__id=..., actor__type="anonymous")
    yield (
        "text of many scripts",
        family,
        changed(one, actor__id="Zoë-Ünal-山田-🦊", purpose="a\tb\nc"),
    )
    yield "the longest text", family, changed(one, description="é" * 500)
    yield "the longest text beyond the basic plane", family, changed(one, description="🦊" * 500)
    yield "text of 63 bytes", family, changed(one, description="x" * 63)
    yield "text of 64 bytes", family, changed(one, description="x" * 64)
    yield "the earliest time", family, changed(one, occurred_at=0)
    yield "the latest time", family, changed(one, occurred_at=9_214_646_400_000_000)
    yield (
        "numbers at their ends",
        family,
        changed(
            one, record_count=(1 << 63) - 1, byte_count=-(1 << 63), source={"port": -(1 << 31)}
        ),
    )
    yield (
        "a UUID in capitals",
        family,
        changed(one, event_id="01966F3E-7A10-7C3B-9D2E-5B7F0C1A2D39"),
    )
    # In the order of UTF-8 bytes U+FF61 comes before U+1F98A; in that of UTF-16 units after it.
    yield (
        "maps in the order of their bytes",
        family,
        changed(one, labels={"b": "2", "a": "1", "\uff61": "4", "🦊": "3", "é": ""}),
    )
    yield (
        "the largest maps and lists",
        family,
        changed(
            one,
            labels={"k" * 60 + f"{n:04}": "v" * 256 for n in range(64)},
            data_classes=[f"class-{n}" for n in range(64)],
        ),
    )
    yield "empty lists and maps", family, changed(one, targets=[], labels={}, data_classes=[])
    yield (
        "as many changes as may be",
        "admin-action",
        changed(
            sample("admin-action"), changes=[{"path": f"field_{n}", "new": "x"} for n in range(20)]
        ),
    )
    for number, (of, event) in enumerate(
        generate(20, seed=11, start_at_us=1_790_000_000_000_000, people_per_tenant=50)
    ):
        yield f"made event {number}", of, event


def invalid_events() -> Iterator[tuple[str, str, Event, list[list[str]]]]:
    """(name, family, event, [[path, rule], …] in the schema's order)."""
    one, family = smallest(), "data-access"

    def case(name: str, *problems: str, **changes: Any) -> tuple[str, str, Event, list[list[str]]]:
        return name, family, changed(one, **changes), [problem.split(" ") for problem in problems]

    for name in ("event_id", "occurred_at", "tenant", "action", "outcome", "producer", "actor"):
        yield case(f"without {name}", f"{name} required", **{name: ...})
    yield case("null where a value is required", "tenant required", tenant=None)
    yield case("null where a list is", "targets type", targets=None)
    yield case("inside a record", "actor.tenant required", actor__tenant=...)
    yield case("inside a list", "resources.*.type required", resources__0__type=...)
    yield case("a number for text", "tenant type", tenant=7)
    yield case("text for a number", "occurred_at type", occurred_at="2026-01-01T00:00:00Z")
    yield case("a fraction", "occurred_at type", occurred_at=1.5)
    yield case("a boolean for a number", "record_count type", record_count=True)
    yield case("a number for a boolean", "imported type", imported=1)
    yield case("a list for a record", "actor type", actor=[])
    yield case("a record for a list", "resources type", resources={"tenant": "acme"})
    yield case("a record for a map", "labels type", labels={"a": 1})
    yield case("a list for a map", "labels type", labels=[])
    yield case("an unknown symbol", "operation symbol", operation="peek")
    yield case("a symbol of another type", "outcome symbol", outcome=1)
    yield case("a time before 1970", "occurred_at range", occurred_at=-1)
    yield case("a time beyond the stores", "occurred_at range", occurred_at=9_214_646_400_000_001)
    yield case("beyond 32 bits", "source.port range", source={"port": 1 << 31})
    yield case("no UUID", "event_id uuid", event_id="not-a-uuid")
    yield case(
        "a UUID without dashes", "event_id uuid", event_id="01966f3e7a107c3b9d2e5b7f0c1a2d39"
    )
    yield case("the nil UUID", "event_id uuid", event_id="00000000-0000-0000-0000-000000000000")
    yield case("empty text", "tenant empty", tenant="")
    yield case("empty text in a list", "data_classes.* empty", data_classes=["contact", ""])
    yield from _texts_and_sizes(case)
    yield from _rules(one, family)


def _texts_and_sizes(case: Any) -> Iterator[tuple[str, str, Event, list[list[str]]]]:
    yield case("text too long", "description text_chars", description="é" * 501)
    yield case(
        "text too long beyond the basic plane", "description text_chars", description="🦊" * 501
    )
    yield case("a control character", "purpose control_character", purpose="a\x00b")
    yield case("an escape sequence", "purpose control_character", purpose="\x1b[31m")
    yield case("a next line", "purpose control_character", purpose="a\x85b")
    yield case("an action that is no noun.verb", "action pattern", action="Export")
    yield case(
        "a trace id in capitals",
        "request.trace_id pattern",
        request={"trace_id": "4BF92F3577B34DA6A3CE929D0E0E4736"},
    )
    yield case("a line's end after the pattern", "action pattern", action="record.read\n")
    yield case("a key too long", "labels label_key_bytes", labels={"é" * 33: "x"})
    yield case("a value too long", "metadata label_value_bytes", metadata={"x": "é" * 129})
    yield case("an empty key", "labels empty", labels={"": "x"})
    yield case("a control character in a key", "labels control_character", labels={"a\x07": "x"})
    yield case("too many entries", "labels items", labels={f"k{n}": "" for n in range(65)})
    yield case("too many elements", "data_classes items", data_classes=["contact"] * 65)
    yield case("a field that is none", "emial unknown_field", emial="ada@example.com")
    yield case("a field inside that is none", "actor.mail unknown_field", actor__mail="x")
    yield case(
        "everything at once, in order",
        "event_id uuid",
        "tenant empty",
        "actor.type symbol",
        "actor.x unknown_field",
        "operation symbol",
        "a unknown_field",
        "z unknown_field",
        event_id="x",
        tenant="",
        actor={"type": "robot", "tenant": "acme", "id_type": "user_id", "x": 1},
        operation="peek",
        z=1,
        a=1,
    )
    yield case(
        "nothing that was reached", "resources at_least_one", resources=[], data_subjects=...
    )


def _rules(one: Event, family: str) -> Iterator[tuple[str, str, Event, list[list[str]]]]:
    yield (
        "a failure without a code",
        "authentication",
        changed(sample("authentication"), failure_code=None),
        [["failure_code", "required_if"]],
    )
    yield (
        "somebody else's profile without a target",
        "profile-update",
        changed(sample("profile-update"), targets=[], self_service=False),
        [["targets", "required_if"]],
    )
    yield (
        "a profile in which nothing changed",
        "profile-update",
        changed(sample("profile-update"), changes=[]),
        [["changes", "at_least_one"]],
    )
    for of in ("admin-action", "security-change"):
        yield (
            f"{of} upon nothing",
            of,
            changed(sample(of), targets=..., resources=[]),
            [["targets", "at_least_one"]],
        )
    yield (
        "a heartbeat without its state",
        "system",
        changed(sample("system"), heartbeat=None),
        [["heartbeat", "required_if"]],
    )
    yield (
        "too many changes",
        "admin-action",
        changed(sample("admin-action"), changes=[{"path": "x"}] * 21),
        [["changes", "changes"]],
    )
    yield (
        "an event that is too large",
        family,
        changed(
            one,
            resources=[
                {"tenant": "acme", "type": "record", "name": "é" * 500, "path": "é" * 500}
                for _ in range(40)
            ],
        ),
        [["", "event_bytes"]],
    )


if __name__ == "__main__":
    sys.exit(main())
