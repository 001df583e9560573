"""What a request says of its events: actor, source, session, tenant; carried through the call.

A context variable holds it, so that threads and tasks of other requests see their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class _Scope:
    """The fields of one context; changed as a whole, and seen by every thread that the context is in."""

    __slots__ = ("fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields


_CURRENT: ContextVar[_Scope | None] = ContextVar("audit_context", default=None)


def current() -> Mapping[str, Any]:
    """Fields that events get unless the call says otherwise."""
    scope = _CURRENT.get()
    return {} if scope is None else scope.fields


@contextmanager
def audit_context(**fields: Any) -> Iterator[None]:
    """Every event inside gets these fields; an inner context adds to the outer one.

    Fields are those of the event: ``tenant``, ``actor``, ``source``, ``session``, ``request``, … Records
    are merged field by field, the inner ones winning; an actor replaces the outer one whole.
    """
    token = _CURRENT.set(_Scope(merged(current(), fields)))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def set_context(**fields: Any) -> None:
    """Add to the context that is open, for whoever runs in it, other threads included: where a request
    is authenticated, ``set_context(actor=…, tenant=…)``.

    Raises:
        LookupError: No context is open (``audit_context``, or a framework's middleware).
    """
    scope = _CURRENT.get()
    if scope is None:
        raise LookupError("no audit context is open: add the middleware, or use audit_context")
    scope.fields = merged(scope.fields, fields)


def merged(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """``outer`` with what ``inner`` says; records in records are merged, None says nothing."""
    if not outer:
        return {name: value for name, value in inner.items() if value is not None}
    result = dict(outer)
    for name, value in inner.items():
        if value is None:
            continue
        known = result.get(name)
        if isinstance(known, Mapping) and isinstance(value, Mapping) and name != "actor":
            result[name] = {**known, **value}
        else:
            result[name] = value
    return result


def trace_of(traceparent: str) -> dict[str, str]:
    """``trace_id`` and ``span_id`` of a ``traceparent`` header; nothing if it is not one.

    Source: W3C Trace Context, version 00.
    """
    parts = traceparent.strip().lower().split("-")
    if len(parts) < 4 or len(parts[0]) != 2 or parts[0] == "ff":
        return {}
    trace, span = parts[1], parts[2]
    if len(trace) != 32 or len(span) != 16 or not _is_hex(trace + span):
        return {}
    if not int(trace, 16) or not int(span, 16):
        return {}
    return {"trace_id": trace, "span_id": span}


def _is_hex(text: str) -> bool:
    return all(char in "0123456789abcdef" for char in text)
