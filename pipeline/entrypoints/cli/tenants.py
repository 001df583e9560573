"""Tenants: let in by a person, each with a random key that wraps its subjects' keys.

A tenant is never replaced: another key would lose every key under it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.domain.errors import ConfigurationError
from pipeline.domain.escrow import TenantEntry
from pipeline.entrypoints.cli.output import Row
from pipeline.entrypoints.cli.stores import call_keys, object_store
from pipeline.keys.provider import KEY_BYTES, load_provider
from sinks.vault import Vault

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from sinks.subject_store import SubjectStore

NAME_MAX_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class TenantOutcome:
    """What became of one name: ``added`` or ``there already``."""

    tenant: str
    state: str

    def row(self) -> Row:
        """For output."""
        return {"tenant": self.tenant, "state": self.state}


def key_context(tenant: str) -> bytes:
    """What a tenant's key is bound to when the key provider wraps it."""
    return b"tenant:" + tenant.encode()


def add_tenants(
    settings: Settings, tenants: Iterable[str], display_name: str = ""
) -> list[TenantOutcome]:
    """Let tenants in; one that is there keeps its key. Durable on return, may be repeated.

    Raises:
        ConfigurationError: A name that no event can have, or no key file.
        Unavailable: The database does not answer.

    """
    names = list(dict.fromkeys(tenants))
    for name in names:
        if not name or not name.isprintable() or len(name) > NAME_MAX_CHARS:
            raise ConfigurationError(
                f"a tenant's name has 1 to {NAME_MAX_CHARS} printable characters"
            )
    provider = load_provider(settings)

    async def add(store: SubjectStore) -> list[TenantOutcome]:
        known = await store.tenants()
        outcomes = []
        async with object_store(settings) as objects:
            vault = Vault(objects, settings.s3_vault_bucket)
            for tenant in names:
                if tenant in known:
                    outcomes.append(TenantOutcome(tenant, "there already"))
                    continue
                wrapped = provider.wrap(os.urandom(KEY_BYTES), key_context(tenant))
                # The vault first, and its answer counts: a database that was rolled back gets the
                # key back under which the tenant's subjects are sealed.
                entry = await vault.escrow_tenant(
                    TenantEntry(tenant, display_name or tenant, wrapped)
                )
                added = await store.create_tenant(
                    tenant, name=entry.name, wrapped_key=entry.wrapped_key
                )
                outcomes.append(TenantOutcome(tenant, "added" if added else "there already"))
        return outcomes

    return call_keys(settings, add)


def list_tenants(settings: Settings) -> list[Row]:
    """Every tenant, for output."""
    tenants = call_keys(settings, lambda store: store.list_tenants())
    return [
        {
            "tenant": tenant.tenant,
            "name": tenant.name,
            "created_at": tenant.created_at.isoformat(),
            "retention_days": tenant.retention_days,
        }
        for tenant in tenants
    ]


def wrapped_keys(settings: Settings) -> dict[str, bytes]:
    """The wrapped key of each tenant."""
    return call_keys(settings, lambda store: store.tenants())


def unknown_tenants(settings: Settings, tenants: Iterable[str]) -> list[str]:
    """Those of ``tenants`` that the ledger would refuse."""
    return sorted(set(tenants).difference(wrapped_keys(settings)))


def require_tenants(settings: Settings, tenants: Sequence[str], *, create: bool) -> None:
    """Before a load: let the missing ones in, or say which are missing.

    Raises:
        ConfigurationError: Tenants are missing and may not be created.

    """
    missing = unknown_tenants(settings, tenants)
    if missing and not create:
        shown = " ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        raise ConfigurationError(
            f"{len(missing)} tenants are unknown ({shown}):"
            " their events would go to the dead letter;"
            " give --create-tenants, or run: audit-trail tenants add"
        )
    if missing:
        add_tenants(settings, missing)
