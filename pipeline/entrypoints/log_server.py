"""The process that serves the logs' checkpoints and tiles. It needs to read the archive bucket, and nothing else."""

from __future__ import annotations

import asyncio
import logging

from pipeline.api.log_tiles import create_log_app
from pipeline.compliance.checkpoint_store import CheckpointObjects
from pipeline.compliance.tile_store import TileStore
from pipeline.entrypoints.http_server import HttpServer
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
    host, port = settings.log_http_host, settings.log_http_port
    server = HttpServer(
        app,
        host=host,
        port=port,
        settings="AUDIT_LOG_HTTP_HOST or AUDIT_LOG_HTTP_PORT",
        on_started=lambda: log_event(log, "log_server_started", host=host, port=port),
        connections_max=CONNECTIONS_MAX,
        keep_alive_s=KEEP_ALIVE_S,
        drain_s=DRAIN_S,
    )
    try:
        server.serve_until_told()
    finally:
        asyncio.run(objects.close())
        log_event(log, "log_server_ended")
