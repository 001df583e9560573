"""``audit-trail verify``: a verification put together from settings, as ``audit_auditor``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pipeline.compliance.archive_walk import ArchiveWalk
from pipeline.compliance.checkpoint_store import CheckpointTable
from pipeline.compliance.trail_reader import TrailReader
from pipeline.compliance.verify import Options, Scope, Verification
from pipeline.compliance.verify_checkpoints import Checkpoints
from pipeline.compliance.verify_ends import Parts
from pipeline.compliance.verify_index import DocumentCheck
from pipeline.compliance.verify_state import Progress
from pipeline.db.connection import Connection
from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.authority import open_authorities
from pipeline.entrypoints.cli.output import Row, progress, say
from pipeline.entrypoints.cli.stores import (
    auditor_url,
    index_client,
    object_store,
    opening_keys,
)
from pipeline.entrypoints.cli.verify_topics import KafkaTopics
from pipeline.keys.signing_keys import trusted_keys
from sinks.index_reader import IndexReader

if TYPE_CHECKING:
    from pipeline.keys.subjects import SubjectKey, SubjectKeys
    from pipeline.settings import Settings
    from sinks.s3 import S3

STORES: Final = ("ledger", "archive", "index")
LISTED_MAX: Final = 50  # findings in a table; JSON has all that are listed


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for. No stores: all. Times are of ``occurred_at``."""

    log: str = ""
    begins: datetime | None = None
    ends: datetime | None = None
    stores: tuple[str, ...] = STORES
    checkpoints: bool = True
    documents: bool = True
    topics: bool = True
    keys: tuple[str, ...] = ()
    state_file: Path | None = None

    def facts(self, settings: Settings) -> dict[str, Any]:
        """What a state file must be of."""
        return {
            "log": self.log,
            "from": _iso(self.begins),
            "to": _iso(self.ends),
            "stores": sorted(self.stores),
            "checkpoints": self.checkpoints,
            "documents": self.documents,
            "origin": settings.log_origin,
        }


def verify_trail(settings: Settings, wanted: Wanted) -> Progress:
    """Verify; what was found.

    Raises:
        ConfigurationError: No such log or store, no trusted key, a server that refuses.
        Unavailable: A server does not answer; with a state file, run it again.

    """
    return asyncio.run(_verify(settings, wanted))


async def _verify(settings: Settings, wanted: Wanted) -> Progress:
    async with verification(settings, wanted) as (run, on_leaves):
        begun = await run.begin()
        left = sum(log.state.size - log.next_leaf for log in begun.logs)
        with progress("verifying leaves", left) as done:
            on_leaves.append(done.advance)
            return await run.run()


@asynccontextmanager
async def verification(
    settings: Settings, wanted: Wanted
) -> AsyncIterator[tuple[Verification, list[Callable[[int], None]]]]:
    """A verification over the stores of the settings, and a list of who is told of verified leaves."""
    unknown = set(wanted.stores) - set(STORES)
    if unknown:
        raise ConfigurationError(f"no such store: {', '.join(sorted(unknown))}; there are {STORES}")
    listeners: list[Callable[[int], None]] = []
    async with AsyncExitStack() as stack:
        url = auditor_url(settings)
        ledger = Connection(url, name="verify", timeout_s=settings.request_timeout_s)
        stack.push_async_callback(ledger.close)
        objects = await stack.enter_async_context(object_store(settings))
        index = await _index(settings, wanted, stack)
        documents = await _documents(settings, wanted, stack)
        checkpoints = _checkpoints(settings, wanted, objects, ledger)
        archive = ArchiveWalk(
            objects,
            archive_bucket=settings.s3_archive_bucket,
            vault_bucket=settings.s3_vault_bucket,
        )
        authorities = await stack.enter_async_context(open_authorities(settings, objects))

        def parts(on_span: Callable[[int], None]) -> Parts:
            return Parts(
                TrailReader(ledger),
                authorities,
                ledger="ledger" in wanted.stores,
                archive=archive if "archive" in wanted.stores else None,
                index=index,
                documents=documents,
                checkpoints=checkpoints,
                on_span=on_span,
            )

        def on_leaves(leaves: int) -> None:
            for listener in listeners:
                listener(leaves)

        options = Options(
            Scope(wanted.log, _aware(wanted.begins), _aware(wanted.ends)),
            wanted.facts(settings),
            KafkaTopics(settings) if wanted.topics else None,
            wanted.state_file,
            on_leaves,
        )
        yield Verification(parts, options), listeners


def log_rows(found: Progress) -> list[Row]:
    """For output: a row per log."""
    counts: dict[str, int] = {}
    for (_kind, _store, log), count in found.findings.counts.items():
        counts[log] = counts.get(log, 0) + count
    return [
        {
            "log": str(log.state.name),
            "leaves": log.state.size,
            "indexed": log.state.indexed,
            "archived": log.state.archived,
            "checkpoints": log.checkpoints,
            "signed_to": log.signed_size,
            "findings": counts.get(str(log.state.name), 0),
        }
        for log in found.logs
    ]


def as_dict(found: Progress) -> dict[str, Any]:
    """For output: everything."""
    return {
        "verified": not found.findings.total,
        "logs": log_rows(found),
        "findings": found.findings.total,
        "counts": list(found.findings.summary()),
        "authority": list(found.findings.authorities()),
        "listed": [finding.row() for finding in found.findings.listed],
        "hours": [row for log in found.logs for row in log.differing],
        "stubs": found.stubs,
    }


async def _index(settings: Settings, wanted: Wanted, stack: AsyncExitStack) -> IndexReader | None:
    if "index" not in wanted.stores:
        return None
    client = index_client(settings)
    stack.push_async_callback(client.close)
    return IndexReader(client, settings.index_prefix)


async def _documents(settings: Settings, wanted: Wanted, stack: AsyncExitStack) -> DocumentCheck:
    has_keys = settings.key_file is not None or bool(settings.kms_key_id)
    compares = wanted.documents and "index" in wanted.stores
    keys: SubjectKeys | None = None
    if compares and has_keys:
        keys = await subject_keys(settings, stack)
    elif compares:
        say(
            "no key provider (AUDIT_KEY_FILE, AUDIT_KMS_KEY_ID): of documents only what follows from"
            " clear values is compared"
        )

    async def keys_of(refs: Iterable[UUID]) -> Mapping[UUID, SubjectKey]:
        return await keys.by_ref(refs) if keys is not None else {}

    return DocumentCheck(
        prefix=settings.index_prefix,
        late_after_s=settings.late_after_s,
        sources=wanted.documents,
        keys_of=keys_of if keys is not None else None,
    )


async def subject_keys(settings: Settings, stack: AsyncExitStack) -> SubjectKeys:
    """The subjects' keys, for opening blobs: wrapped ones from the ledger as the writer, since
    ``audit_auditor`` may see none.
    """
    from pipeline.keys.provider import load_provider
    from sinks.subject_store import SubjectStore

    url = settings.database_url.get_secret_value()
    store = SubjectStore(url, timeout_s=settings.request_timeout_s)
    stack.push_async_callback(store.close)
    keys = opening_keys(settings, load_provider(settings), store)
    keys.know_tenants(await store.tenants())
    return keys


def _checkpoints(
    settings: Settings, wanted: Wanted, objects: S3, ledger: Connection
) -> Checkpoints | None:
    if not wanted.checkpoints:
        return None
    return Checkpoints(
        objects,
        bucket=settings.s3_archive_bucket,
        table=CheckpointTable(ledger),
        keys=trusted_keys(wanted.keys, settings.verifier_keys_file),
        origin_prefix=settings.log_origin,
    )


def _aware(time: datetime | None) -> datetime | None:
    return time if time is None or time.tzinfo else time.replace(tzinfo=UTC)


def _iso(time: datetime | None) -> str | None:
    aware = _aware(time)
    return aware.isoformat() if aware else None
