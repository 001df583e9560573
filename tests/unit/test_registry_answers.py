"""Whose answer it is: an id that the registry does not know is a dead letter, a wrong address is not."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline.codec.registry import SchemaRegistry
from pipeline.domain.errors import InvalidRecord, Reason, Unavailable

SUBJECT = "audit.raw.authentication-value"


async def ask(status: int, body: str) -> None:
    """The registry's answer to every request."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    async with TestServer(application) as server:
        registry = SchemaRegistry(str(server.make_url("/")))
        await registry.open()
        try:
            await registry.by_id(7, SUBJECT)
        finally:
            await registry.close()


@pytest.mark.anyio
@pytest.mark.parametrize("status", [404, 422])
async def test_an_id_that_the_registry_does_not_know_is_a_bad_record(status: int) -> None:
    with pytest.raises(InvalidRecord) as refused:
        await ask(status, '{"error_code": 40403, "message": "Schema 7 not found."}')

    assert refused.value.reason is Reason.UNKNOWN_SCHEMA


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [
        "default backend - 404",
        "",
        '{"status": 404, "detail": "Could not find resource for full path"}',
        "[40403]",
    ],
)
async def test_a_404_of_anything_else_is_waited_for(body: str) -> None:
    with pytest.raises(Unavailable, match="AUDIT_REGISTRY_URL"):
        await ask(404, body)
