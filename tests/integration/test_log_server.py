"""The logs over HTTP: what C2SP tlog-tiles asks for, from the bucket alone."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator

import httpx
import pytest

from pipeline.api.log_tiles import create_log_app
from pipeline.compliance.checkpoint_store import published_key
from pipeline.compliance.tile_store import tile_key
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import merkle_root
from pipeline.domain.notes import parse_note
from pipeline.domain.tiles import Tile, tiles_between
from pipeline.keys.note_keys import verify_note
from tests.archive_support import Gateway, open_gateway
from tests.ledger_support import Database, anyio_backend, database, template
from tests.signing_support import A_KEY, ORIGIN, GrowingLog, SignerOf, a_log, a_name, a_signer

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@pytest.fixture
async def served(
    anyio_backend: str, database: Database
) -> AsyncIterator[tuple[httpx.AsyncClient, GrowingLog, SignerOf, Gateway]]:
    """A log with checkpoints of 300 and 1,000 leaves, and who serves it."""
    async with open_gateway() as gateway, a_signer(database, gateway) as of:
        log = await a_log(database, 300, name=a_name())
        await of.signer.round()
        await log.grow(700)
        await of.signer.round()
        transport = httpx.ASGITransport(create_log_app(of.objects, of.tiles))
        async with httpx.AsyncClient(transport=transport, base_url="http://log") as client:
            yield client, log, of, gateway


Served = tuple[httpx.AsyncClient, GrowingLog, SignerOf, Gateway]


async def test_the_checkpoint_is_text_that_is_not_kept_for_long(served: Served) -> None:
    client, log, _, _ = served

    answer = await client.get(f"/{log.name}/checkpoint")
    note = parse_note(answer.content)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=3"
    assert verify_note(note, [A_KEY.verifier])
    assert note.text.splitlines()[:2] == [f"{ORIGIN}/{log.name}", "1000"]


async def test_a_client_gets_the_signed_root_from_the_tiles_alone(served: Served) -> None:
    client, log, _, _ = served

    checkpoint = (await client.get(f"/{log.name}/checkpoint")).text.split("\n")
    leaves = []
    for tile in [one for one in tiles_between(0, int(checkpoint[1])) if one.level == 0]:
        answer = await client.get(f"/{log.name}/{tile.path}")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        leaves += [answer.content[at : at + 32] for at in range(0, len(answer.content), 32)]

    assert merkle_root(leaves) == b64decode(checkpoint[2])


async def test_the_partial_tiles_of_every_checkpoint_are_served(
    served: Served,
) -> None:
    client, log, _, gateway = served
    gateway.s3.client.delete_object(Bucket=gateway.archive, Key=tile_key(log.name, Tile(0, 1, 44)))

    for path, width in (("tile/0/001.p/44", 44), ("tile/0/003.p/232", 232), ("tile/1/000.p/3", 3)):
        answer = await client.get(f"/{log.name}/{path}")
        assert (answer.status_code, len(answer.content)) == (200, width * 32)


async def test_head_is_answered_without_a_body(served: Served) -> None:
    client, log, _, _ = served

    answer = await client.head(f"/{log.name}/tile/0/000")

    assert (answer.status_code, answer.headers["content-length"]) == (200, "8192")


@pytest.mark.parametrize(
    "path",
    [
        "{log}/tile/0/005",
        "{log}/tile/0/003",
        "{log}/tile/0/003.p/233",
        "{log}/tile/0/3",
        "{log}/tile/00/000",
        "{log}/tile/64/000",
        "{log}/tile/0/x000/000",
        "{log}/tile/0/000.p/256",
        "{log}/tile/0/000.p/0",
        "{log}/tile/0/000/",
        "{log}/tile/entries/000",
        "{log}/tile/0/../checkpoint",
        "{log}/checkpoint/",
        "{log}",
        "{topic}/0{partition}/1/checkpoint",
        "{topic}/{partition}/01/checkpoint",
        "{topic}/{partition}/0/checkpoint",
        "{topic}/{partition}/2/checkpoint",
        "audit.dead-letter/{partition}/1/checkpoint",
        "audit.raw../{partition}/1/checkpoint",
        "..%2f..%2farchive/{partition}/1/checkpoint",
        "",
        "openapi.json",
    ],
)
async def test_every_other_path_is_not_found(served: Served, path: str) -> None:
    client, log, _, _ = served
    name = log.name

    answer = await client.get(
        "/" + path.format(log=name, topic=name.topic, partition=name.partition)
    )

    assert answer.status_code == 404
    assert "immutable" not in answer.headers.get("cache-control", "")


async def test_nothing_is_changed_over_http(served: Served) -> None:
    client, log, _, _ = served

    for method in ("PUT", "POST", "DELETE", "PATCH"):
        assert (await client.request(method, f"/{log.name}/checkpoint")).status_code == 405


async def test_a_tile_of_another_length_is_not_served(served: Served) -> None:
    client, log, _, gateway = served
    gateway.s3.client.put_object(
        Bucket=gateway.archive, Key=tile_key(log.name, Tile(0, 0)), Body=bytes(64)
    )

    assert (await client.get(f"/{log.name}/tile/0/000")).status_code == 404


async def test_a_bucket_that_is_away_is_asked_for_patience(served: Served) -> None:
    client, log, of, _ = served
    other = LogName(log.name.topic, log.name.partition, 9)

    of.objects._bucket = of.tiles._bucket = "no-such-bucket-here"
    of.gateway.s3._waits_for_permission = True
    answers = [
        await client.get(f"/{other}/checkpoint"),
        await client.get(f"/{other}/tile/0/000"),
    ]

    assert [answer.status_code for answer in answers] == [503, 503]
    assert [answer.headers["retry-after"] for answer in answers] == ["5", "5"]
    assert published_key(other) not in answers[0].text
