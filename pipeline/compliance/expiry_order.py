"""An expiry as an order and as a request's row, and back again: the same order each time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from pipeline.compliance.keeping import microseconds
from pipeline.compliance.retention import Due
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.orders import EXPIRY, Expiry, Order
from sinks.expiring import Scope
from sinks.removals import Request

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def scope_of(request: Request) -> Scope:
    """What a request lets expire."""
    if request.month is None:
        raise ConfigurationError(f"request {request.request_id} is no expiry")
    month = datetime(request.month.year, request.month.month, 1, tzinfo=UTC)
    after, until = request.stored_after, request.stored_until
    return Scope(month, request.tenant, request.class_, after, until)


def order_of(
    request_id: UUID, one: Due, reason: str, asked_at: datetime, *, count: int, root: bytes
) -> Order:
    scope = one.scope
    until, after = scope.stored_until, scope.stored_after
    if until is None:
        raise ValueError("an expiry without an end")
    expiry = Expiry(
        month=f"{scope.month:%Y-%m}",
        days=one.days,
        stored_until_us=microseconds(until),
        bounds=dict(one.bounds),
        class_=scope.class_,
        stored_after_us=None if after is None else microseconds(after),
    )
    requested_at = microseconds(asked_at)
    return Order(request_id, EXPIRY, scope.tenant, reason, requested_at, count, root, expiry=expiry)


def order_again(request: Request, scope: Scope) -> Order:
    """The order of a request's row, the same as when it was made."""
    one = Due(scope, request.days or 0, request.bounds, request.leaves)
    return order_of(
        request.request_id, one, request.reason, request.requested_at,
        count=request.leaves, root=request.root,
    )  # fmt: skip


def request_of(order: Order, requested_by: str) -> Request:
    expiry = order.expiry
    if expiry is None:
        raise ValueError("an order of another kind")
    after = expiry.stored_after_us
    return Request(
        request_id=order.request_id,
        kind=EXPIRY,
        state="planned",
        tenant=order.tenant,
        class_=expiry.class_,
        month=datetime.strptime(f"{expiry.month}-01", "%Y-%m-%d").date(),  # noqa: DTZ007
        days=expiry.days,
        stored_after=None if after is None else _time(after),
        stored_until=_time(expiry.stored_until_us),
        bounds=expiry.bounds,
        policy=None,
        reason=order.reason,
        requested_by=requested_by,
        requested_at=_time(order.requested_at_us),
        event_id=order.event_id,
        leaves=order.count,
        root=order.root,
        order_hash=order.hash(),
        counts={},
        done_at=None,
    )


def _time(time_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_us)
