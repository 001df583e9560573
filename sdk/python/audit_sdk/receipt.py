"""A receipt for one event: what the broker says of it, later."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audit_sdk.items import Item
    from audit_sdk.publisher import Publisher


class Receipt:
    """Of ``Audit.send``. The event is accepted for delivery and has its sequence; thread-safe."""

    __slots__ = ("_item", "_publisher", "event_id")

    def __init__(self, event_id: str, publisher: Publisher, item: Item) -> None:
        self.event_id = event_id
        self._publisher = publisher
        self._item = item

    @property
    def settled(self) -> bool:
        """Whether the broker has the event, or it is known that it will not have it."""
        return self._item.settled is not None and self._item.settled.is_set()

    @property
    def failed(self) -> bool:
        """Whether it is known that the event will not arrive: it may be sent again as a new one."""
        return self.settled and bool(self._item.failure)

    def wait(self, timeout_s: float) -> None:
        """Return once the broker has the event.

        Raises:
            NotDelivered: Not within ``timeout_s``: it goes on being tried, and this may be called again.
                Or, with ``failed``, never.
        """
        self._publisher.wait(self._item, self.event_id, timeout_s)
