"""The process that serves the logs' checkpoints and tiles. It needs to read the archive bucket, and nothing else."""

from __future__ import annotations

import asyncio
import logging

import uvicorn

from pipeline.api.log_tiles import create_log_app
from pipeline.compliance.checkpoint_store import CheckpointObjects
from pipeline.compliance.tile_store import TileStore
from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.stores import make_objects
from pipeline.logging import configure_logging, log_event
from pipeline.settings import Settings

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 256
KEEP_ALIVE_S = 15
DRAIN_S = 10


def run_log_server(settings: Settings) -> None:
    """Serve until told to end: SIGTERM or Ctrl-C, after the requests that are open.

    Raises:
        ConfigurationError: The port is taken, or not ours to take.
    """
    configure_logging(settings.log_level)
    objects = make_objects(settings, waits_for_permission=True)
    bucket = settings.s3_archive_bucket
    app = create_log_app(
        CheckpointObjects(objects, bucket=bucket), TileStore(objects, bucket=bucket)
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.log_http_host,
            port=settings.log_http_port,
            http="h11",
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
    )
    log_event(log, "log_server_starts", host=settings.log_http_host, port=settings.log_http_port)
    try:
        server.run()
    except SystemExit:  # uvicorn has said why, in prose
        raise ConfigurationError(
            f"cannot listen on {settings.log_http_host}:{settings.log_http_port}:"
            " set AUDIT_LOG_HTTP_HOST or AUDIT_LOG_HTTP_PORT"
        ) from None
    finally:
        asyncio.run(objects.close())
        log_event(log, "log_server_ended")
