"""The logs as static files over HTTP: checkpoints and tiles, as C2SP tlog-tiles has them.

Read from the archive bucket alone: it needs no key and no database, and it shows hashes and sizes,
never an event. Whoever fetches proves what came: nothing here has to be trusted.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from fastapi import APIRouter, FastAPI, Response

from pipeline.compliance.checkpoint_store import CONTENT_TYPE as NOTE_TYPE
from pipeline.compliance.checkpoint_store import CheckpointObjects
from pipeline.compliance.tile_store import CONTENT_TYPE as TILE_TYPE
from pipeline.compliance.tile_store import TileRefused, TileStore
from pipeline.domain.errors import Unavailable
from pipeline.domain.logs import RAW_PREFIX, LogName
from pipeline.domain.tiles import Tile
from pipeline.logging import log_event

log = logging.getLogger(__name__)

CHECKPOINT_MAX_AGE_S: Final = 3
TILE_MAX_AGE_S: Final = 365 * 86_400
RETRY_AFTER_S: Final = 5
_TOPIC: Final = re.compile(re.escape(RAW_PREFIX) + r"[a-z][a-z-]{0,99}", re.ASCII)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_METHODS: Final = ["GET", "HEAD"]


def create_log_app(objects: CheckpointObjects, tiles: TileStore) -> FastAPI:
    """The application: the logs, and ``/healthz``. Every other path is 404."""
    app = FastAPI(
        title="Audit logs", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.include_router(log_router(objects, tiles))

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response("alive\n", media_type="text/plain")

    return app


def log_router(objects: CheckpointObjects, tiles: TileStore) -> APIRouter:
    """``/<log>/checkpoint`` and ``/<log>/tile/<L>/<N>[.p/<W>]``; a log is topic/partition/epoch."""
    router = APIRouter()

    @router.api_route("/{topic}/{partition}/{epoch}/checkpoint", methods=_METHODS)
    async def checkpoint(topic: str, partition: str, epoch: str) -> Response:
        name = _log(topic, partition, epoch)
        if name is None:
            return _not_found()
        try:
            found = await objects.published(name)
        except Unavailable as error:
            return _unavailable(error)
        if found is None:
            return _not_found()
        headers = {"Cache-Control": f"public, max-age={CHECKPOINT_MAX_AGE_S}"}
        return Response(found.encoded, headers=headers | {"Content-Type": NOTE_TYPE})

    @router.api_route("/{topic}/{partition}/{epoch}/tile/{path:path}", methods=_METHODS)
    async def tile(topic: str, partition: str, epoch: str, path: str) -> Response:
        name = _log(topic, partition, epoch)
        try:
            wanted = Tile.parse(f"tile/{path}")
        except ValueError:
            return _not_found()
        if name is None:
            return _not_found()
        try:
            hashes = await tiles.get(name, wanted)
        except TileRefused:
            return _not_found()
        except Unavailable as error:
            return _unavailable(error)
        headers = {"Cache-Control": f"public, max-age={TILE_MAX_AGE_S}, immutable"}
        return Response(hashes, headers=headers | {"Content-Type": TILE_TYPE})

    return router


def _log(topic: str, partition: str, epoch: str) -> LogName | None:
    """The log that a path names in its one way of writing."""
    numbers = _NUMBER.fullmatch(partition) and _NUMBER.fullmatch(epoch)
    if not _TOPIC.fullmatch(topic) or not numbers or epoch == "0":
        return None
    return LogName(topic, int(partition), int(epoch))


def _not_found() -> Response:
    # Not kept: what is not there yet may be there with the next checkpoint.
    return Response(
        "not found\n", 404, media_type="text/plain", headers={"Cache-Control": "no-store"}
    )


def _unavailable(error: Unavailable) -> Response:
    log_event(log, "log_server_waits", level=logging.WARNING, server=error.what, why=str(error))
    headers = {"Cache-Control": "no-store", "Retry-After": str(RETRY_AFTER_S)}
    return Response("try again later\n", 503, media_type="text/plain", headers=headers)
