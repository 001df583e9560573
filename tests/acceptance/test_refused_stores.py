"""Stores that refuse the worker's credentials from the start: the ledger does not wait for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.codec.wire import frame
from pipeline.settings import Settings
from tests.acceptance.records import (
    FAMILY,
    an_acme_event,
    body,
    next_offset,
    publish,
    ready,
    start_worker,
    stored,
    wait_until,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


class Refusing(BaseHTTPRequestHandler):
    """An Elasticsearch that knows nobody."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = b'{"error": {"type": "security_exception", "reason": "no"}, "status": 401}'
        self.send_response(401)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT  # noqa: N815 - the base class looks for these names

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def refusing_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_ledger_goes_on_while_both_stores_refuse_the_worker(
    settings: Settings, registered: dict[str, int], refusing_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    event = an_acme_event()
    with log.open("wb") as lines:
        worker = start_worker(
            lines,
            AUDIT_ELASTICSEARCH_URL=refusing_url,
            AUDIT_S3_SECRET_ACCESS_KEY="wrong-key-that-nobody-may-see",
            AUDIT_FOLLOWER_LAGGING_S="0.5",
            AUDIT_ARCHIVE_MAX_AGE_S="0.5",
        )
        try:
            offsets = publish(settings, 1, frame(registered[FAMILY], body(event)))
            wait_until(lambda: next_offset(settings, 1) > offsets[-1])
            assert stored(settings, {event["event_id"]})
            wait_until(lambda: set(ready().get("lagging", [])) == {"index", "archive"})
            assert worker.poll() is None
        finally:
            worker.terminate()
            assert worker.wait(30) == 0

    said = [json.loads(line) for line in log.read_bytes().splitlines() if line.startswith(b"{")]
    waited = {entry["sink"]: entry["why"] for entry in said if entry["event"] == "store_waited_for"}
    assert "security_exception" in waited["index"]
    assert "s3 unavailable: refuses" in waited["archive"]
    assert b"wrong-key" not in log.read_bytes()
