"""Middleware for FastAPI, Starlette and every other ASGI application: the request's facts for its events.

The address is that of the connection; a forwarded one counts only if the connection comes from a
proxy that ``trusted_proxies`` names. Who acts is not in a request until it is authenticated: name the
actor with ``audit_sdk.set_context(actor=…)`` there.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

from audit_sdk.context import audit_context, trace_of
from audit_sdk.contract import contract

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[
    [Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

_USER_AGENT_MAX_CHARS: Final = contract().limits.text_chars
_REQUEST_ID_MAX_CHARS: Final = 64  # no limit of the contract: a longer one is not a random id


class AuditMiddleware:
    """``app.add_middleware(AuditMiddleware, trusted_proxies=["10.0.0.0/8"])``."""

    def __init__(self, app: App, *, trusted_proxies: Sequence[str] = ()) -> None:
        self._app = app
        self._proxies = [ip_network(network) for network in trusted_proxies]

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
            source = self._source(client, _joined(scope, b"x-forwarded-for").decode("latin-1"))
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
        nearest = _address(str(client[0]))
        if nearest is None:
            return {}  # a Unix socket has none
        source = {"ip": str(nearest), "port": client[1]}
        if not self._is_proxy(nearest):
            return source
        for part in reversed([part.strip() for part in forwarded.split(",") if part.strip()]):
            hop = _address(part)
            if hop is None:
                break
            source = {"ip": str(hop)}
            if not self._is_proxy(hop):
                break
        return source

    def _is_proxy(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._proxies)


def _joined(scope: Scope, header: bytes) -> bytes:
    """A header that may come in several lines, which count as one. Source: RFC 9110 §5.3."""
    return b",".join(value for name, value in scope.get("headers", ()) if name.lower() == header)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Without a zone, and IPv4 where it is IPv4 in IPv6; None: it is no address."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv4Address):
        return found
    return found.ipv4_mapped or IPv6Address(int(found))


def _request_id(given: str) -> str:
    """The caller's, if it is one that may be kept in clear; else a new one."""
    plain = given.replace("-", "").replace("_", "")
    is_kept = plain.isalnum() and plain.isascii() and len(given) <= _REQUEST_ID_MAX_CHARS
    return given if is_kept else str(uuid.uuid4())
