"""Around every answer: headers, origins, and an end for what nobody expected.

ASGI middleware, from the outside in: ``Headers``, ``Origins`` (CORS), ``Guard``.
"""

from __future__ import annotations

import logging
from typing import Final

from starlette.datastructures import Headers as RequestHeaders
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.api.metrics import RelayMetrics
from pipeline.api.problems import SEND_AGAIN, Kind, Refusal, problem
from pipeline.logging import log_event

log = logging.getLogger(__name__)

_SAFE: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


class Headers:
    """The same safe headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SAFE.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_safe)


class Origins(CORSMiddleware):
    """CORS without credentials; a page of an origin that is not listed is refused, not only unread."""

    def __init__(self, app: ASGIApp, *, origins: tuple[str, ...], metrics: RelayMetrics) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("POST",),
            allow_headers=("Authorization", "Content-Type"),
            expose_headers=("Retry-After",),
            max_age=600,
        )
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            origin = RequestHeaders(scope=scope).get("origin")
            if origin is not None and not self.is_allowed_origin(origin):
                await self._refuse()(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: RequestHeaders) -> Response:
        """What a browser asks first; refused as a problem, too."""
        answer = super().preflight_response(request_headers)
        return answer if answer.status_code < 400 else self._refuse()

    def _refuse(self) -> Response:
        self._metrics.refused.labels(Kind.ORIGIN_REFUSED.label).inc()
        return problem(Refusal(Kind.ORIGIN_REFUSED, "it is not among AUDIT_RELAY_ORIGINS"))


class Guard:
    """What is not foreseen ends as a 500 that says what a client may do and nothing of why, and in the
    log by type and place alone.
    """

    def __init__(self, app: ASGIApp, *, metrics: RelayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except ClientDisconnect:
            return  # nobody is there to be answered
        except Exception as error:
            log_event(log, "request_failed", level=logging.ERROR, error=error)
            self._metrics.refused.labels(Kind.INTERNAL.label).inc()
            if started:
                raise
            detail = f"it is in the relay's log; {SEND_AGAIN}"
            await problem(Refusal(Kind.INTERNAL, detail))(scope, receive, send)
