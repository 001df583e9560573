"""Where orders are kept: one object each in the archive bucket, locked, and the first version counts.

An order that is here survives the loss of the database: what it says is removed again after a restore.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.orders import ORDERS_PREFIX, Order, decode_order
from sinks.s3 import S3, Lock


class OrderStore:
    """Order objects; the S3 client belongs to whoever made it. Every call may raise ``Unavailable``."""

    def __init__(self, s3: S3, *, bucket: str, lock: Callable[[], Lock]) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._lock = lock

    async def put(self, order: Order) -> None:
        """Store an order. Durable on return; may be repeated.

        Raises:
            ChainBroken: Another order has its id.
        """
        body = order.encode()
        if await self._s3.put(
            self._bucket,
            order.key,
            body,
            content_type="application/json",
            absent=True,
            lock=self._lock(),
        ):
            return
        async for stored in self._stored(order.key):
            if stored != body:
                raise ChainBroken("orders", f"{order.key} holds another order of this id")
            return
        raise Unavailable("s3", "the order came and went")

    async def all(self) -> AsyncIterator[Order]:
        """Every order, by id.

        Raises:
            ChainBroken: An object that is no order, or whose name is another's.
        """
        async for key, version in self._s3.oldest_versions(self._bucket, ORDERS_PREFIX):
            stored = await self._s3.get(self._bucket, key, version=version)
            if stored is None:
                continue
            try:
                order = decode_order(stored.body)
            except ValueError as error:
                raise ChainBroken("orders", f"object {key}: {error}") from None
            if order.key != key:
                raise ChainBroken("orders", f"object {key} holds an order of another id")
            yield order

    async def _stored(self, key: str) -> AsyncIterator[bytes]:
        async for found, version in self._s3.oldest_versions(self._bucket, key):
            stored = await self._s3.get(self._bucket, found, version=version)
            if found == key and stored is not None:
                yield stored.body
