"""The relay's HTTP interface: one path that takes events, and the pages of whoever runs it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import anyio
from anyio import to_thread
from audit_sdk.asgi import AuditMiddleware
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from pipeline.api import description
from pipeline.api.guard import Guard, Headers, Origins
from pipeline.api.metrics import RelayMetrics
from pipeline.api.problems import Kind, Refusal, of_status, problem
from pipeline.api.reading import check_type, read_body
from pipeline.api.relay import Relay, RelayParts
from pipeline.api.settings import RelaySettings
from pipeline.logging import log_event

log = logging.getLogger(__name__)

API_VERSION: Final = "1.0.0"
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class TakenEvent(BaseModel):
    """One event of an answered batch, in the order of the request."""

    event_id: str
    result: str = Field(
        description="accepted, or duplicate: it was recorded before.",
        json_schema_extra={"enum": ["accepted", "duplicate"]},
    )


class TakenBatch(BaseModel):
    """The brokers have all of these events."""

    events: list[TakenEvent]


def create_app(
    settings: RelaySettings,
    parts: RelayParts,
    metrics: RelayMetrics,
    *,
    broker_answers: Callable[[], bool],
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """The application. ``broker_answers`` may block: it is called in a thread, and bounds itself."""
    app = FastAPI(
        title="Audit relay",
        version=API_VERSION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    relay = Relay(
        parts,
        id_type=settings.id_type,
        ack_timeout_s=settings.ack_timeout_s,
        retry_after_s=settings.retry_after_s,
    )
    _add_relay(app, settings, relay, metrics)
    _add_pages(app, parts, metrics, broker_answers)
    _add_problems(app, metrics)
    app.add_middleware(AuditMiddleware, trusted_proxies=settings.proxy_list)
    app.add_middleware(Guard, metrics=metrics)
    app.add_middleware(Origins, origins=settings.origin_list, metrics=metrics)
    app.add_middleware(Headers)

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            app.openapi_schema = description.complete(made, parts.allowed)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return app


def _add_relay(app: FastAPI, settings: RelaySettings, relay: Relay, metrics: RelayMetrics) -> None:
    threads = anyio.CapacityLimiter(settings.requests_max)
    in_work = 0  # counted before anything is waited for, so that nobody queues for a thread

    @app.post(
        description.PATH,
        status_code=202,
        summary="Record events of a page",
        operation_id="record_events",
        response_model=TakenBatch,
        responses=description.responses(),
        openapi_extra={"requestBody": description.request_body()},
    )
    async def record_events(request: Request) -> TakenBatch:
        nonlocal in_work
        began = time.monotonic()
        try:
            body = await _body(request, settings)
            if in_work >= settings.requests_max:
                raise Refusal(
                    Kind.BUSY,
                    f"{settings.requests_max} batches are in work; send the same events again",
                    retry_after_s=settings.retry_after_s,
                )
            in_work += 1
            try:
                authorization = request.headers.get("authorization")
                taken = await to_thread.run_sync(
                    relay.receive, body, authorization, limiter=threads
                )
            finally:
                in_work -= 1
        finally:
            metrics.seconds.observe(time.monotonic() - began)
        answered = [
            TakenEvent(event_id=one.event_id, result="duplicate" if one.duplicate else "accepted")
            for one in taken
        ]
        for one in answered:
            metrics.events.labels(one.result).inc()
        return TakenBatch(events=answered)


async def _body(request: Request, settings: RelaySettings) -> bytes:
    headers = request.headers
    check_type(headers.get("content-type", ""), headers.get("content-encoding", ""))
    return await read_body(
        request.stream(),
        headers.get("content-length", ""),
        max_bytes=settings.body_max_bytes,
        timeout_s=settings.body_timeout_s,
    )


def _add_pages(
    app: FastAPI,
    parts: RelayParts,
    metrics: RelayMetrics,
    broker_answers: Callable[[], bool],
) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        reachable = await to_thread.run_sync(broker_answers)
        body = {"ready": reachable, "waiting_for": [] if reachable else ["kafka"]}
        return JSONResponse(body, 200 if reachable else 503)

    @app.get("/metrics", include_in_schema=False)
    async def served(request: Request) -> Response:
        metrics.remembered.set(len(parts.replays))
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"Content-Type": content_type})


def _add_problems(app: FastAPI, metrics: RelayMetrics) -> None:
    def answer(refusal: Refusal) -> Response:
        metrics.refused.labels(refusal.kind.label).inc()
        level = logging.WARNING if refusal.kind.status >= 500 else logging.INFO
        cause = refusal.__cause__  # of a bug alone
        log_event(log, "request_refused", level=level, error=cause, reason=refusal.kind.label)
        return problem(refusal)

    @app.exception_handler(Refusal)
    async def refused(_request: Request, refusal: Refusal) -> Response:
        return answer(refusal)

    @app.exception_handler(HTTPException)
    async def not_routed(_request: Request, error: HTTPException) -> Response:
        return answer(of_status(error.status_code, error.headers))
