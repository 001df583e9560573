"""After the database was restored: orders and holds that it has lost are brought back from the buckets.

What an order removed comes back with the archive's leaves only in part (sealed events of a month; a
blob that the vault has no more does not), and with a backup in full: so every order that the
database does not show as done is carried out again before a worker may start on anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from pipeline.compliance.expiry import Expiring
from pipeline.compliance.holding import HoldCopies
from pipeline.compliance.keeping import Keeping
from pipeline.compliance.redaction import Redaction
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.orders import EXPIRY, REDACTION


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back: holds, and requests that have to be carried out (again)."""

    holds: int
    requests: tuple[UUID, ...]


async def bring_back(keeping: Keeping, expiring: Expiring, copies: HoldCopies) -> Outcome:
    """Store holds and requests that the database lacks; nothing is removed yet. May be repeated.

    Holds come first: they outrank what is carried out again.

    Raises:
        ChainBroken: An object in a bucket is not what was stored.
        Unavailable: Run it again later.
    """
    known = {hold.hold_id for hold in await keeping.holds.all()}
    holds = 0
    async for hold in copies.all():
        if hold.hold_id not in known:
            holds += await keeping.holds.place(hold)
    done = {request.request_id: request.state for request in await keeping.removals.all()}
    requests = []
    redaction = Redaction(keeping)
    async for order in keeping.orders.all():
        if done.get(order.request_id) == "done":
            continue
        if order.request_id not in done:
            if order.kind == REDACTION:
                await redaction.again(order)
            elif order.kind == EXPIRY:
                await expiring.again(order)
            else:
                raise ConfigurationError(f"{order.key}: no order that this release knows")
        requests.append(order.request_id)
    return Outcome(holds, tuple(requests))


async def carry_out(keeping: Keeping, expiring: Expiring, request_id: UUID) -> str:
    """Carry a request out again, whatever its kind; its kind. Raises as the two of them do."""
    request = await keeping.removals.get(request_id)
    if request.kind == EXPIRY:
        await expiring.carry_out(request_id)
    else:
        await Redaction(keeping).carry_out(request_id)
    return request.kind
