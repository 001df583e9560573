"""A page in a real browser: a click there is an event in all three stores."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from playwright.sync_api import Page, sync_playwright

from pipeline.entrypoints.cli.compare import Verified, archive_ids, compare_stores
from pipeline.settings import Settings
from tests.acceptance.records import ROOT, indexed, stored, wait_until
from tests.acceptance.relay_process import PATH, RelayProcess, a_relay_process
from tests.relay_support import AUDIENCE, Provider
from tests.tools import CHROMIUM

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240), pytest.mark.needs("chromium")]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FILES = {
    "/": (ROOT / "tests/acceptance/browser_page.html", "text/html"),
    "/audit-sdk/browser.js": (ROOT / "sdk/nodejs/src/browser.js", "text/javascript"),
}


class Site:
    """The application's own server: the page, the client, a token, and where the page goes."""

    def __init__(self, provider: Provider) -> None:
        self.relay_url = ""
        self.left: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if parts.path in FILES:
                    file, kind = FILES[parts.path]
                    body = file.read_bytes()
                else:
                    kind, body = "text/plain", b"gone"
                if parts.path == "/config":
                    body = json.dumps({"url": site.relay_url + PATH}).encode()
                elif parts.path == "/token":
                    body = provider.token(sub="ada").encode()
                elif parts.path == "/left":
                    site.left += parse_qs(parts.query)["id"]
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


@pytest.fixture
def site(provider: Provider) -> Iterator[Site]:
    made = Site(provider)
    yield made
    made.close()


@pytest.fixture
def relay(
    registered: dict[str, int], provider: Provider, site: Site, tmp_path: Path
) -> Iterator[RelayProcess]:
    with a_relay_process(
        tmp_path,
        AUDIT_RELAY_ISSUER=provider.issuer,
        AUDIT_RELAY_AUDIENCE=AUDIENCE,
        AUDIT_RELAY_ORIGINS=site.origin,
    ) as made:
        site.relay_url = made.url
        yield made


@contextmanager
def a_page(profile: Path) -> Iterator[Page]:
    """Of a browser with a new and empty profile."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=FLAGS
        ) as context,
    ):
        yield context.new_page()


def test_what_is_clicked_is_in_every_store(
    settings: Settings,
    worker: subprocess.Popen[bytes],
    relay: RelayProcess,
    site: Site,
    tmp_path: Path,
) -> None:
    with a_page(tmp_path / "profile") as page:
        page.goto(site.origin)
        page.wait_for_selector("body[data-ready]")
        page.click("#download")
        page.wait_for_function("window.recorded.download && window.pending() === 0")
        assert page.evaluate("window.dropped") == []
        clicked = page.evaluate("window.recorded.download")
        page.click("#logout")
        page.wait_for_url("**/gone")
        (left,) = site.left

        # While the browser lives: it is the one that sends the beacon.
        wait_until(lambda: stored(settings, {clicked, left}) == {clicked, left})

    (document,) = wait_until(lambda: indexed(settings, f"event.id:{clicked}"))
    assert document["event.action"] == "invoice.download"
    assert document["user.id"] == "ada"
    assert document["source.ip"] == "127.0.0.1"
    assert "Chrome" in document["user_agent.original"]
    (document,) = wait_until(lambda: indexed(settings, f"event.id:{left}"))
    assert document["event.action"] == "session.end"
    wanted = {UUID(clicked).bytes, UUID(left).bytes}
    wait_until(lambda: wanted <= archive_ids(settings, Verified()).ids)
    wait_until(lambda: compare_stores(settings).equal)
    assert worker.poll() is None
