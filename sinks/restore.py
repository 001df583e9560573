"""After the database was rolled back: keys from the escrow first, then leaves from the archive.

Leaves come back as they were: bytes, blobs, times. Kafka is read again only from the archive's
last offset on, so no leaf index ever gets a second hash. Both may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pipeline.domain.errors import ChainBroken
from pipeline.domain.escrow import KeyStore
from pipeline.domain.records import LeafRange, LogHead
from sinks.archive_reader import ArchiveReader
from sinks.vault import Vault


class RestorableLedger(Protocol):
    """What a restore needs of the ledger."""

    async def read(self, log_id: int, first_leaf: int, *, limit: int) -> LeafRange:
        """As ``Ledger.read``."""
        ...

    async def restore(self, leaves: LeafRange, *, next_offset: int) -> LogHead:
        """Append leaves that begin at the head's size, as they were; durable on return."""
        ...


class TenantStore(KeyStore, Protocol):
    """Where restored tenants and keys go: ``sinks.subject_store.SubjectStore``."""

    async def create_tenant(
        self, tenant: str, *, name: str, wrapped_key: bytes, retention_days: int | None = None
    ) -> bool:
        """Insert a tenant; one that is there stays. Raises ``Unavailable``."""
        ...


async def restore_keys(vault: Vault, key_store: TenantStore, *, after: str | None = None) -> int:
    """Insert the escrowed tenants and keys that the database lacks; how many keys. Before any
    ``restore_log``. Tenants come first: their keys unwrap those of their subjects.

    ``after``: the newest escrow object that the database remembers, to read only what is newer.

    Raises:
        Unavailable: Run it again later.
        ConfigurationError: A vault object is not an escrow batch.
    """
    async for tenant in vault.read_tenants():
        await key_store.create_tenant(
            tenant.tenant,
            name=tenant.name,
            wrapped_key=tenant.wrapped_key,
            retention_days=tenant.retention_days,
        )
    restored = 0
    async for _, entries in vault.read_escrow(after):
        restored += await key_store.restore(entries)
    return restored


async def restore_log(
    ledger: RestorableLedger,
    archive: ArchiveReader,
    head: LogHead,
    *,
    on_leaves: Callable[[int], None] = lambda _leaves: None,
) -> LogHead:
    """Append what the archive holds beyond the head; the head afterwards. ``on_leaves`` is told how
    many leaves more are durable.

    Raises:
        ChainBroken: The archive contradicts the ledger, or leaves between them are in neither.
        Unavailable: Run it again later.
    """
    async for found in archive.ranges(head.name, head.size):
        info = found.info
        if info.first_leaf > head.size:
            raise ChainBroken(
                str(head.name),
                f"the ledger ends before leaf {head.size}, the archive goes on with "
                f"{info.first_leaf}: the leaves between are in neither",
            )
        if info.next_leaf <= head.size:
            continue
        leaves = await archive.read(found, head.log_id)
        await _compare(ledger, leaves, head)
        size = head.size
        head = await ledger.restore(leaves.from_leaf(size), next_offset=info.next_offset)
        on_leaves(head.size - size)
    return head


async def _compare(ledger: RestorableLedger, leaves: LeafRange, head: LogHead) -> None:
    """Leaves of the range that the ledger has must be the same there."""
    leaf = leaves.first_leaf
    while leaf < head.size:
        held = await ledger.read(head.log_id, leaf, limit=min(head.size - leaf, 5_000))
        if not held.events:
            raise ChainBroken(str(head.name), f"the ledger does not give leaf {leaf} of its own")
        for event in held.events:
            if event.leaf_hash != leaves.events[leaf - leaves.first_leaf].leaf_hash:
                raise ChainBroken(
                    str(head.name),
                    f"leaf {leaf} differs between ledger and archive. "
                    f"Run `audit-trail compare` and see docs/runbooks/stopped-partition.md",
                )
            leaf += 1
