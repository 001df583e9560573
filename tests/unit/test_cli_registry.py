"""The command line's registry client: a proxy's 404 is no registry's word that nothing is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.registry import RegistryClient
from pipeline.entrypoints.cli.schemas import check, shipped
from pipeline.settings import load_settings


@contextmanager
def answering(body: str) -> Iterator[RegistryClient]:
    """A server that answers everything with 404 and this."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/"
    try:
        with RegistryClient(load_settings(registry_url=url)) as client:
            yield client
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_a_registry_that_knows_of_no_subject_says_so() -> None:
    with answering('{"error_code": 40401, "message": "No such subject."}') as client:
        assert client.versions("audit.raw.authentication-value") == []


@pytest.mark.parametrize("body", ["<html>404</html>", "", '{"detail": "no such path"}'])
def test_what_is_no_registry_lets_no_schema_pass(body: str) -> None:
    (candidate,) = shipped(["authentication"])
    with answering(body) as client, pytest.raises(ConfigurationError, match="AUDIT_REGISTRY_URL"):
        check(client, candidate)
