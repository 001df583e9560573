"""A registry is held to what the ledger recorded of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

import avro_schemas
from pipeline.contracts.compatibility import fingerprint
from pipeline.contracts.registry_check import differences
from pipeline.domain.errors import ConfigurationError, InvalidRecord, Reason, Unavailable
from pipeline.entrypoints.cli.schema_rows import _check_same
from sinks.recorded_schemas import RecordedSchema

pytestmark = pytest.mark.anyio

FAMILY = "authentication"
SUBJECT = f"audit.raw.{FAMILY}-value"


def recorded(schema_id: int = 3, version: int = 1, family: str = FAMILY) -> RecordedSchema:
    text = avro_schemas.canonical_text(family)
    subject = f"audit.raw.{family}-value"
    return RecordedSchema(
        schema_id, subject, version, family, text, fingerprint(json.loads(text)), "ada"
    )


async def said(schema: dict[str, Any] | None) -> list[str]:
    """What is found when the registry has this schema for the id; None: it knows no such id."""

    async def ask(schema_id: int, subject: str) -> str:
        assert (schema_id, subject) == (3, SUBJECT)
        if schema is None:
            raise InvalidRecord(Reason.UNKNOWN_SCHEMA, "schema id 3")
        return json.dumps(schema)

    return await differences([recorded()], ask)


async def test_the_same_schema_in_other_words_is_the_same() -> None:
    schema = avro_schemas.load(FAMILY)
    schema["doc"] = "Other words."
    del schema["ecs_category"]

    assert await said(schema) == []


async def test_an_id_that_the_registry_lost_is_found() -> None:
    (sentence,) = await said(None)

    assert "schema id 3" in sentence
    assert "not in the registry" in sentence


async def test_an_id_that_means_another_schema_now_is_found() -> None:
    schema = avro_schemas.load(FAMILY)
    schema["fields"][2]["type"] = "bytes"

    (sentence,) = await said(schema)

    assert "another schema" in sentence


async def test_a_mark_that_was_taken_away_in_the_registry_is_found() -> None:
    schema = avro_schemas.load(FAMILY)
    next(field for field in schema["fields"] if field["name"] == "reason")["pii"] = "none"

    (sentence,) = await said(schema)

    assert "marks of personal data" in sentence


async def test_a_registry_that_is_away_is_no_difference() -> None:
    async def away(_schema_id: int, _subject: str) -> str:
        raise Unavailable("registry")

    with pytest.raises(Unavailable):
        await differences([recorded()], away)


@pytest.mark.parametrize(
    "other", [recorded(schema_id=4), recorded(version=2), recorded(family="data-access")]
)
async def test_registering_with_a_registry_of_other_ids_is_refused(other: RecordedSchema) -> None:
    with pytest.raises(ConfigurationError, match="not the registry"):
        _check_same(other, [recorded()])


async def test_registering_the_same_again_is_nothing() -> None:
    _check_same(recorded(), [recorded(), recorded(5, 1, "data-access")])
