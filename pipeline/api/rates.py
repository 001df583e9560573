"""How many events an actor and a tenant may send in any minute.

A moving window, counted by the package ``limits``, in memory or in the storage that a URI names; there
an actor is a hash, never an id. Refused events count as well: trying is what costs.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable

from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter

from pipeline.api.problems import Kind, Refusal
from pipeline.api.tokens import Principal
from pipeline.domain.errors import ConfigurationError
from pipeline.logging import log_event

log = logging.getLogger(__name__)


class Rates:
    """Both limits. Thread-safe; over several processes only with a storage that they share."""

    def __init__(
        self,
        storage: str,
        *,
        actor_per_minute: int,
        tenant_per_minute: int,
        retry_after_s: int,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Raises ``ConfigurationError`` if there is no such storage."""
        try:
            self._limiter = MovingWindowRateLimiter(
                storage_from_string(storage, wrap_exceptions=True)
            )
        except Exception as error:  # noqa: BLE001 - each storage has errors of its own driver
            raise ConfigurationError(
                f"AUDIT_RELAY_RATE_STORAGE cannot be used ({type(error).__name__})"
            ) from None
        self._actor = RateLimitItemPerMinute(actor_per_minute, namespace="audit-relay-actor")
        self._tenant = RateLimitItemPerMinute(tenant_per_minute, namespace="audit-relay-tenant")
        self._retry_after_s = retry_after_s
        self._now_s = now_s

    def take(self, principal: Principal, events: int) -> None:
        """Count events of an actor.

        Raises:
            Refusal: 429; or 503 if the storage does not answer.
        """
        tenant = _hashed(principal.tenant)
        actor = _hashed(principal.tenant, principal.actor_id)
        try:
            for item, name in ((self._actor, actor), (self._tenant, tenant)):
                if not self._limiter.test(item, name, cost=events):
                    raise self._exceeded(item, name)
            # Two calls at once may both pass the test above: whoever comes second stops here.
            for item, name in ((self._actor, actor), (self._tenant, tenant)):
                if not self._limiter.hit(item, name, cost=events):
                    raise self._exceeded(item, name)
        except StorageError as error:
            log_event(log, "rates_not_counted", level=logging.ERROR, why=type(error).__name__)
            raise Refusal(
                Kind.BUSY, "rates cannot be counted now", retry_after_s=self._retry_after_s
            ) from None

    def _exceeded(self, item: RateLimitItemPerMinute, name: str) -> Refusal:
        oldest_ends_at = self._limiter.get_window_stats(item, name).reset_time
        whose = "this actor" if item is self._actor else "this tenant"
        return Refusal(
            Kind.RATE_EXCEEDED,
            f"{whose} may send {item.amount} events in a minute",
            retry_after_s=max(math.ceil(oldest_ends_at - self._now_s()), 1),
        )


def _hashed(*names: str) -> str:
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()
