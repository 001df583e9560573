"""Middleware for FastAPI, Starlette and every other ASGI application: the request's facts for its events.

The address is that of the connection; a forwarded one counts only if the connection comes from a
proxy that ``trusted_proxies`` names. Who acts is not in a request until it is authenticated: name the
actor with ``audit_sdk.set_context(actor=…)`` there.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from audit_sdk.context import audit_context, trace_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[
    [Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

_USER_AGENT_MAX_CHARS = 500


class AuditMiddleware:
    """``app.add_middleware(AuditMiddleware, trusted_proxies=["10.0.0.0/8"])``."""

    def __init__(self, app: App, *, trusted_proxies: Sequence[str] = ()) -> None:
        self._app = app
        self._proxies = [ipaddress.ip_network(network) for network in trusted_proxies]

    async def __call__(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Serve one request with its facts in the context."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope.get("headers", ())}
        source: dict[str, Any] = {}
        client = scope.get("client")
        if client:
            source = self._source(client, headers.get(b"x-forwarded-for", b"").decode("latin-1"))
        agent = headers.get(b"user-agent", b"").decode("latin-1")[:_USER_AGENT_MAX_CHARS]
        if agent.isprintable() and agent:
            source["user_agent"] = agent
        request = {
            "id": _request_id(headers.get(b"x-request-id", b"").decode("latin-1")),
            **trace_of(headers.get(b"traceparent", b"").decode("latin-1")),
        }
        with audit_context(source=source or None, request=request):
            await self._app(scope, receive, send)

    def _source(self, client: Sequence[Any], forwarded: str) -> dict[str, Any]:
        """The nearest address that is no trusted proxy's, from the right."""
        address, port = str(client[0]), client[1]
        if not self._is_proxy(address):
            return {"ip": address, "port": port} if _is_address(address) else {}
        for hop in reversed([part.strip() for part in forwarded.split(",") if part.strip()]):
            if not _is_address(hop):
                break
            address, port = hop, None
            if not self._is_proxy(hop):
                break
        return {"ip": address} if port is None else {"ip": address, "port": port}

    def _is_proxy(self, address: str) -> bool:
        if not _is_address(address):
            return False
        found = ipaddress.ip_address(address)
        return any(found in network for network in self._proxies)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _request_id(given: str) -> str:
    """The caller's, if it is one that may be kept in clear; else a new one."""
    plain = given.replace("-", "").replace("_", "")
    return given if plain.isalnum() and plain.isascii() and len(given) <= 64 else str(uuid.uuid4())
