"""An event of a tenant that was added before it was published is never a dead letter."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pipeline.domain.errors import Reason
from pipeline.testing import an_actor, an_event
from sinks.base import PreparedBatch, RecordBatch
from sinks.prepare import Preparer
from tests.unit.native_support import HEAD, TENANTS, Record, World, value_of


def wrapped(world: World, *tenants: str) -> Mapping[str, bytes]:
    return {
        tenant: world.provider.wrap(bytes(32), b"tenant:" + tenant.encode()) for tenant in tenants
    }


def batch_of(family: str, tenant: str) -> RecordBatch:
    event = an_event(family, tenant=tenant, actor=an_actor(tenant=tenant))
    records = [Record(0, value_of(family, event))]
    return RecordBatch(f"audit.raw.{family}", 0, 0, 1, records, 1)


def prepared(preparer: Preparer, *batches: RecordBatch) -> list[PreparedBatch]:
    return asyncio.run(preparer.prepare([(batch, HEAD) for batch in batches]))


def test_a_tenant_is_looked_for_also_right_after_another_one() -> None:
    world, known = World(), list(TENANTS)

    for tenant in ("new-1", "new-2"):

        async def look(tenant: str = tenant) -> None:
            known.append(tenant)
            world.plain.know_tenants(wrapped(world, *known))

        world.plain.look_for_tenants = look
        (done,) = prepared(world.plain, batch_of("data-access", tenant))
        assert (len(done.events), done.dead) == (1, [])


def test_a_tenant_that_was_learned_while_the_batches_were_read_is_known() -> None:
    world = World()

    class Learning(Record):
        """Read after the first batch: by then the tenants were refreshed."""

        @property
        def value(self) -> bytes:  # type: ignore[override]
            world.plain.know_tenants(wrapped(world, *TENANTS, "new-1"))
            found: bytes = self.__dict__["value"]
            return found

        @value.setter
        def value(self, _value: object) -> None: ...

    async def look() -> None: ...

    world.plain.look_for_tenants = look
    first, second = batch_of("data-access", "new-1"), batch_of("admin-action", "acme")
    second.records[0].__class__ = Learning

    done = prepared(world.plain, first, second)

    assert [len(one.events) for one in done] == [1, 1]


def test_a_tenant_that_nobody_added_is_looked_for_once() -> None:
    world, looks = World(), []

    async def look() -> None:
        looks.append(1)

    world.plain.look_for_tenants = look
    unknown = [batch_of("data-access", f"nobody-{number}") for number in range(5)]

    done = prepared(world.plain, *unknown)

    assert {letter.reason for one in done for letter in one.dead} == {Reason.TENANT_UNKNOWN}
    assert looks == [1]
