"""The compiled decoder reads what a general Avro reader reads, and refuses what is not an event."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import avro_schemas
from pipeline.codec.avro_reader import read_long
from pipeline.codec.compiler import compile_decoder
from pipeline.codec.decoders import check_required
from pipeline.codec.limits import Limits
from pipeline.codec.policy import SealingPolicy
from pipeline.domain.errors import InvalidRecord, Reason
from pipeline.testing import a_target, an_event, events

FAMILIES = avro_schemas.families()
LIMITS = Limits()
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def policy(family: str) -> SealingPolicy:
    return SealingPolicy.of(
        (leaf.path, leaf.kind, leaf.pii) for leaf in avro_schemas.leaves(family)
    )


DECODERS = {
    family: compile_decoder(avro_schemas.load(family), policy(family), LIMITS)
    for family in FAMILIES
}
# Without logical types: both readers then give the stored integers and strings.
PARSED = {
    family: fastavro.parse_schema(
        json.loads(json.dumps(avro_schemas.load(family)).replace('"logicalType"', '"kind"'))
    )
    for family in FAMILIES
}


def encode(family: str, event: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, PARSED[family], event)
    return out.getvalue()


def decode(family: str, body: bytes) -> dict[str, Any]:
    """Every value by path, whoever owns it."""
    clear, groups = DECODERS[family](body, 0)
    flat = dict(clear)
    for values in groups.values():
        assert not flat.keys() & values.keys()
        flat.update(values)
    return flat


def read(family: str, body: bytes) -> dict[str, Any]:
    """The same by fastavro and a plain walk: the slow, obvious form."""
    return dict(_walk("", fastavro.schemaless_reader(io.BytesIO(body), PARSED[family], None)))


def _walk(path: str, value: Any) -> Any:
    if value is None or value in ([], {}):
        return
    if isinstance(value, dict) and path not in ("labels", "metadata"):
        for name, child in value.items():
            yield from _walk(f"{path}.{name}" if path else name, child)
    elif isinstance(value, list) and isinstance(value[0], dict):
        for index, child in enumerate(value):
            yield from _walk(f"{path}.{index}", child)
    else:
        yield path, value


def refusal(family: str, body: bytes) -> Reason | None:
    try:
        decode(family, body)
    except InvalidRecord as error:
        return error.reason
    except IndexError:
        return Reason.TRUNCATED
    except UnicodeDecodeError:
        return Reason.INVALID_UTF8
    return None


@pytest.mark.parametrize("family", FAMILIES)
@CALM
@given(data=st.data())
def test_reads_what_a_general_reader_reads(family: str, data: st.DataObject) -> None:
    body = encode(family, data.draw(events(family)))

    assert decode(family, body) == read(family, body)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_truncation_is_refused(family: str) -> None:
    body = encode(family, an_event(family))

    reasons = {refusal(family, body[:length]) for length in range(len(body))}

    assert None not in reasons


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_after_the_record_are_refused(family: str) -> None:
    body = encode(family, an_event(family))

    assert refusal(family, body + b"\x00") is Reason.TRAILING_BYTES


@pytest.mark.parametrize("family", FAMILIES)
@CALM
@given(data=st.data())
def test_a_mutation_is_refused_or_read_alike(family: str, data: st.DataObject) -> None:
    body = bytearray(encode(family, data.draw(events(family))))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    reason = refusal(family, bytes(body))

    if reason is None:  # still an event: then both readers agree on it
        assert decode(family, bytes(body)) == read(family, bytes(body))


@pytest.mark.parametrize("family", FAMILIES)
@given(body=st.binary(max_size=400))
def test_noise_never_gets_through_as_another_failure(family: str, body: bytes) -> None:
    refusal(family, body)


def nested(depth: int) -> Any:
    kind: Any = "string"
    for _ in range(depth):
        kind = {"type": "map", "values": kind}
    return kind


BOMBS = {
    "200 million zero-width items": (
        {"type": "array", "items": "null"},
        b"\x80\x88\xde\xbe\x01\x00",
    ),
    "a negative count": ({"type": "array", "items": "null"}, b"\xff\x87\xde\xbe\x01\x00\x00"),
    "many blocks": ({"type": "array", "items": "null"}, b"\x02" * 100_000 + b"\x00"),
    "a map of many": ({"type": "map", "values": "null"}, b"\x80\x88\xde\xbe\x01\x00"),
    "a string of 2 GB": ("string", b"\xfe\xff\xff\xff\x0f"),
    "an endless number": ("long", b"\xff" * 100_000),
    "a negative length": ("string", b"\x01"),
    "empty records": (
        {"type": "array", "items": {"type": "record", "name": "E", "fields": []}},
        b"\x80\x88\xde\xbe\x01\x00",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_inflated(name: str) -> None:
    kind, body = BOMBS[name]
    schema = {"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]}
    bomb = compile_decoder(schema, SealingPolicy({}), LIMITS)

    tracemalloc.start()
    with pytest.raises((InvalidRecord, IndexError)):
        bomb(body, 0)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1_000_000


UNUSABLE = {
    "a type that contains itself": {
        "type": "record",
        "name": "R",
        "fields": [{"name": "f", "type": ["null", "R"]}],
    },
    "a type that doubles at every level": {
        "type": "record",
        "name": "R",
        "fields": [
            {
                "name": f"f{level}",
                "type": {
                    "type": "record",
                    "name": f"T{level}",
                    "fields": [
                        {"name": "a", "type": f"T{level - 1}" if level else "int"},
                        {"name": "b", "type": f"T{level - 1}" if level else "int"},
                    ],
                },
            }
            for level in range(20)
        ],
    },
    "an unknown name": {"type": "record", "name": "R", "fields": [{"name": "f", "type": "Q"}]},
    "maps too deep": {
        "type": "record",
        "name": "R",
        "fields": [{"name": "f", "type": nested(9)}],
    },
    "no record": {"type": "string"},
    "a name that is code": {
        "type": "record",
        "name": "R",
        "fields": [{"name": "f'] = 1; import os #", "type": "int"}],
    },
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_schema_that_cannot_be_used_says_so(name: str) -> None:
    with pytest.raises(InvalidRecord) as refused:
        compile_decoder(UNUSABLE[name], SealingPolicy({}), LIMITS)

    assert refused.value.reason is Reason.SCHEMA_UNUSABLE


def varint(number: int, more_bytes: int = 0) -> bytes:
    """A zig-zag long, with bytes that add nothing: the specification does not forbid them."""
    rest = (number << 1) ^ (number >> 63)
    octets = bytearray()
    while rest > 127 or more_bytes:
        more_bytes -= rest <= 127
        octets.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*octets, rest])


@given(number=st.integers(-(2**63), 2**63 - 1), after=st.binary(max_size=9))
def test_a_long_of_any_width_is_read_and_nothing_after_it(number: int, after: bytes) -> None:
    octets = varint(number)

    assert read_long(octets + after, 0) == (number, len(octets))


@pytest.mark.parametrize("more_bytes", range(1, 8))
def test_longer_forms_of_a_number_mean_the_same(more_bytes: int) -> None:
    kinds = [["null", "string"], {"type": "enum", "name": "E", "symbols": ["a", "b"]}, "int"]
    fields = [{"name": f"f{at}", "type": kind} for at, kind in enumerate(kinds)]
    read_all = compile_decoder(
        {"type": "record", "name": "R", "fields": fields}, SealingPolicy({}), LIMITS
    )
    one, three = varint(1, more_bytes), varint(3, more_bytes)

    _clear, groups = read_all(one + three + b"abc" + one + three, 0)

    assert groups["actor"] == {"f0": "abc", "f1": "b", "f2": 3}


@pytest.mark.parametrize("blocks", [[3], [1, 2], [-3], [1, -1, 1], [-1, -2]])
def test_an_array_is_read_in_any_blocks(blocks: list[int]) -> None:
    kind = {"type": "array", "items": "string"}
    schema = {"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]}
    read_blocks = compile_decoder(schema, SealingPolicy({}), Limits(items=3))
    body, item = b"", b"\x02x"
    for count in blocks:
        size = varint(abs(count) * len(item)) if count < 0 else b""
        body += varint(count) + size + item * abs(count)

    assert read_blocks(body + b"\x00", 0)[1]["actor"] == {"f": ["x"] * 3}
    for wrong, reason in [
        (body + b"\x02" + item + b"\x00", Reason.LIMIT_EXCEEDED),
        (body + b"\x01\x04" + item + b"\x00", Reason.LIMIT_EXCEEDED),
        (b"\x01\x06" + item + b"\x00", Reason.MALFORMED),
    ]:
        with pytest.raises(InvalidRecord) as refused:
            read_blocks(wrong, 0)
        assert refused.value.reason is reason


@pytest.mark.parametrize("body", [b"\x02\x04k", b"\x02\x02k\x04\xc3", b"\x02\x04\xc3"])
def test_a_map_that_ends_inside_a_text_is_truncated(body: bytes) -> None:
    kind = {"type": "map", "values": "string"}
    schema = {"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]}
    labels = compile_decoder(schema, SealingPolicy({}), LIMITS)

    with pytest.raises(InvalidRecord) as refused:
        labels(body, 0)

    assert refused.value.reason is Reason.TRUNCATED


def test_deep_maps_are_read_within_the_limits() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "f", "type": nested(8)}]}
    deep = compile_decoder(schema, SealingPolicy({}), LIMITS)
    body = b"\x02\x02k" * 8 + b"\x02v" + b"\x00" * 8

    _clear, groups = deep(body, 0)

    assert json.dumps(groups["actor"]).count("{") == 9


def test_a_number_that_is_none_is_refused() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "f", "type": "double"}]}
    real = compile_decoder(schema, SealingPolicy({}), LIMITS)

    assert real(b"\x00\x00\x00\x00\x00\x00\xd0\x3f", 0)[1]["actor"] == {"f": "0.25"}
    for body in (b"\x00\x00\x00\x00\x00\x00\xf8\x7f", b"\x00\x00\x00\x00\x00\x00\xf0\xff"):
        with pytest.raises(InvalidRecord) as refused:
            real(body, 0)
        assert refused.value.reason is Reason.NOT_A_NUMBER


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("action", "x" * 501),
        ("labels", {"k" * 65: "v"}),
        ("labels", {"k": "v" * 257}),
        ("labels", {f"k{n}": "v" for n in range(65)}),
        ("changes", [{"path": "p", "old": "a", "new": "b"}] * 21),
    ],
)
def test_a_limit_is_named_with_its_path(change: str, value: Any) -> None:
    body = encode("profile-update", an_event("profile-update", **{change: value}))

    with pytest.raises(InvalidRecord) as refused:
        DECODERS["profile-update"](body, 0)

    assert refused.value.reason is Reason.LIMIT_EXCEEDED
    assert refused.value.detail.startswith(change)


def test_the_text_limit_counts_characters() -> None:
    body = encode("authentication", an_event("authentication", action="é" * 500))

    assert decode("authentication", body)["action"] == "é" * 500


def test_an_unmarked_field_of_a_new_version_belongs_to_the_actor() -> None:
    schema = avro_schemas.load("authentication")
    schema["fields"].append({"name": "email", "type": "string", "pii": "none"})
    schema["fields"].append({"name": "pin", "type": ["null", "int"], "default": None})
    careless = compile_decoder(schema, policy("authentication"), LIMITS)
    body = encode("authentication", an_event("authentication")) + b"\x08a@bc" + b"\x02\x54"

    clear, groups = careless(body, 0)

    assert groups["actor"]["email"] == "a@bc"
    assert groups["actor"]["pin"] == 42
    assert not {"email", "pin"} & clear.keys()


APPROVER = {
    "type": "record",
    "name": "Approver",
    "fields": [{"name": name, "type": "string", "pii": "none"} for name in ("tenant", "id_type")]
    + [{"name": "id", "type": "string", "pii": "actor"}],
}


def test_a_party_of_a_new_version_is_values_like_any_others() -> None:
    schema = avro_schemas.load("admin-action")
    schema["fields"].append({"name": "approver", "type": ["null", APPROVER], "default": None})
    schema["fields"].append({"name": "witnesses", "type": {"type": "array", "items": "Approver"}})
    newer = compile_decoder(schema, policy("admin-action"), LIMITS)
    event = an_event("admin-action", targets=[a_target()])
    body = encode("admin-action", event) + b"\x02\x02a\x02b\x02c" + b"\x02\x02d\x02e\x02f\x00"

    clear, groups = newer(body, 0)

    given = {path: value for path, value in groups["actor"].items() if path.count(".")}
    del given["actor.id"]
    assert given == {
        "approver.tenant": "a", "approver.id_type": "b", "approver.id": "c",
        "witnesses.0.tenant": "d", "witnesses.0.id_type": "e", "witnesses.0.id": "f",
    }  # fmt: skip
    assert groups.keys() == {"actor", "targets.0"}
    assert not [path for path in clear if path.startswith(("approver", "witnesses"))]


def test_values_go_to_their_owners() -> None:
    event = an_event("profile-update", changes=[{"path": "phone", "old": "1", "new": "2"}])
    clear, groups = DECODERS["profile-update"](encode("profile-update", event), 0)

    assert groups["actor"]["actor.id"] == event["actor"]["id"]
    assert groups["target"] == {"changes.0.old": "1", "changes.0.new": "2"}
    assert clear["changes.0.path"] == "phone"
    assert all(prefix in ("actor", "target") or prefix[-1].isdigit() for prefix in groups)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_what_the_pipeline_reads(family: str) -> None:
    check_required(avro_schemas.load(family), LIMITS)


def test_a_schema_without_an_event_id_is_refused() -> None:
    schema = avro_schemas.load("authentication")
    schema["fields"] = [field for field in schema["fields"] if field["name"] != "event_id"]

    with pytest.raises(InvalidRecord, match="event_id"):
        check_required(schema, LIMITS)
