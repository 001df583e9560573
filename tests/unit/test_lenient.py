"""Refused records are read as far as they go, and cost no more than they are long."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import avro_schemas
from pipeline.codec import lenient
from pipeline.codec.lenient import texts_of_records
from pipeline.codec.limits import Limits
from pipeline.codec.types import Node, parse
from pipeline.testing import a_data_subject, a_target, an_actor, an_event
from tests.acceptance.records import body

EVENT = an_event(
    "data-access",
    actor=an_actor("u-1", tenant="acme"),
    targets=[a_target("u-2", tenant="acme")],
    data_subjects=[a_data_subject("u-3", tenant="globex")],
)
SCHEMA = avro_schemas.load("data-access")
BODY = body(EVENT, SCHEMA)
ROOT = parse(json.loads(json.dumps(SCHEMA)), Limits())


def ids(found: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [
        (one["tenant"], one["id"]) for one in found if {"tenant", "id_type", "id"} <= one.keys()
    ]


def test_everybody_whom_a_whole_record_names_is_found() -> None:
    found = ids(texts_of_records(BODY, ROOT))

    assert {("acme", "u-1"), ("acme", "u-2"), ("globex", "u-3")} <= set(found)


def test_of_a_record_that_is_cut_off_whoever_stands_before_the_cut_is_found() -> None:
    whole = ids(texts_of_records(BODY, ROOT))
    counts = [len(ids(texts_of_records(BODY[:end], ROOT))) for end in range(len(BODY))]

    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] == len(whole)


@given(st.binary(max_size=400))
def test_whatever_the_bytes_are_it_ends(noise: bytes) -> None:
    texts_of_records(noise, ROOT)


@pytest.mark.parametrize(
    "items",
    [
        Node("null"),
        Node("record"),
        Node("fixed", size=0),
        Node("record", fields=(("inner", Node("array", items=(Node("null"),)), "none"),)),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_bomb_costs_a_bounded_time_and_memory(items: Node, sign: int) -> None:
    root = Node("record", fields=(("a", Node("array", items=(items,)), "none"),))
    bomb = a_long(sign * 200_000_000) + (a_long(1) if sign < 0 else b"") + a_long(10**9) * 20
    tracemalloc.start()
    began = time.process_time()

    texts_of_records(bomb, root)

    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - began < 10  # a decoder without the bound takes minutes
    assert peak < 300 * lenient.ITEMS_MAX


def a_long(number: int) -> bytes:
    zigzag = (number << 1) ^ (number >> 63)
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes([*out, zigzag])


def test_text_that_is_no_text_is_kept_as_far_as_it_goes() -> None:
    root = Node("record", fields=(("id", Node("string"), "none"),))
    found: Any = texts_of_records(b"\x06a\xffb", root)

    assert found == [{"id": "a\ufffdb"}]
