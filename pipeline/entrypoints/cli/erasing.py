"""Erasing a person from the command line: requests, their approval, the run, what a restore lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID, uuid4

from pipeline.compliance.erasure import Erasure
from pipeline.compliance.erasure_parts import Bounds, Pending, Tools
from pipeline.compliance.reapply import Reapplied, reapply_lost
from pipeline.domain.erasure import FIRST_RUN, REASON_MAX_CHARS, SUBJECTS_MAX, State
from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.announcing import operator_of
from pipeline.entrypoints.cli.erasure_brokers import ElasticIndex, KafkaBrokers
from pipeline.entrypoints.cli.output import Progress, Row, progress
from pipeline.entrypoints.cli.stores import (
    archive_reader,
    call_keys,
    index_client,
    object_store,
    opening_keys,
    redactor_url,
)
from pipeline.entrypoints.cli.topics import LETTER_DAYS, RAW_DAYS
from pipeline.keys.provider import KeyProvider, load_provider, load_seed_provider
from pipeline.keys.signing_keys import active_keys, open_signer, read_keys
from pipeline.keys.subjects import Subject, subject_message
from sinks.documents import Documents
from sinks.erasure_store import ErasureStore, Request
from sinks.index_rewrite import IndexRewriter
from sinks.key_escrow import KeyEscrow
from sinks.ledger import PostgresLedger
from sinks.opening import BlobOpener
from sinks.subject_store import SubjectStore
from sinks.vault import Vault

if TYPE_CHECKING:
    from pipeline.settings import Settings

Answer = TypeVar("Answer")

LISTED_MAX: Final = 1_000
ALIASES_MAX: Final = 10
_LOOK_S: Final = 0.1
_ALIAS_SHARE: Final = 0.5  # of one's events, with the person in them


def subjects_of(
    tenant: str, id_type: str, ids: Sequence[str], also: Sequence[str]
) -> list[Subject]:
    """The identifiers of one person, each once.

    Raises:
        ConfigurationError: None, too many, or ``also`` without its kind; no identifier is repeated.
    """
    found = [Subject(tenant, id_type, one) for one in ids]
    for one in also:
        kind, equals, identifier = one.partition("=")
        if not equals or not kind:
            raise ConfigurationError("--also: give TYPE=ID")
        found.append(Subject(tenant, kind, identifier))
    subjects = list(dict.fromkeys(found))
    if not 1 <= len(subjects) <= SUBJECTS_MAX:
        raise ConfigurationError(f"give 1 to {SUBJECTS_MAX} identifiers: --subject ID")
    if not all(part for subject in subjects for part in subject):
        raise ConfigurationError("tenant, id type and id may not be empty")
    return subjects


def read_subjects(file: Path) -> list[str]:
    """TYPE=ID of each line; - is stdin. Raises ``ConfigurationError``."""
    import sys

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"--subjects-file: {file} cannot be read") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def request_erasure(settings: Settings, subjects: Sequence[Subject], reason: str) -> Request:
    """Note a request; durable on return. Of the identifiers only keyed hashes are kept.

    Raises:
        ConfigurationError: No such tenant, or a setting is missing that the erasure will need.
        Unavailable: A server does not answer.
    """
    if not 1 <= len(reason) <= REASON_MAX_CHARS or not reason.isprintable():
        raise ConfigurationError(f"--reason: 1 to {REASON_MAX_CHARS} printable characters")
    tenant = subjects[0].tenant
    if tenant not in {row.tenant for row in call_keys(settings, lambda keys: keys.list_tenants())}:
        raise ConfigurationError(f"no such tenant: {tenant}; see: audit-trail tenants list")
    read_keys(settings.signing_key_file)  # the certificate will be signed
    provider = load_provider(settings)
    hashes, raw_hashes = _hashes(provider, subjects)
    request_id = uuid4()

    async def create(store: ErasureStore) -> Request:
        await store.create(
            request_id,
            tenant=tenant,
            id_types=[subject.id_type for subject in subjects],
            subject_hashes=hashes,
            raw_key_hashes=raw_hashes,
            reason=reason,
            requested_by=operator_of(settings),
            four_eyes=settings.erasure_four_eyes,
        )
        return await store.get(request_id)

    return call_store(settings, create)


def dry_run(settings: Settings, subjects: Sequence[Subject]) -> list[Row]:
    """What an erasure of these would touch, in each store. Nothing is changed."""
    hashes, raw_hashes = _hashes(load_provider(settings), subjects)

    async def count(store: ErasureStore) -> tuple[list[Row], list[UUID]]:
        rows = await store.subjects(hashes)
        living = [row for row in rows if row.erased_at is None]
        refs = [row.subject_ref for row in living]
        found: list[Row] = [
            _row("identifiers", "given", len(hashes)),
            _row("identifiers", "known", len({row.subject_hash for row in rows})),
            _row("keys", "living", len(living)),
            _row("vault", "escrow objects", len({row.escrow for row in living} - {None})),
        ]
        for topic, events, blobs in await store.counts(refs):
            found.append(_row("ledger", f"events of {topic}", events))
            found.append(_row("ledger", f"blobs of {topic}", blobs))
        found.append(_row("dead letters", "by record key", await store.letters_of(raw_hashes)))
        found += [
            _row(
                "may be an alias",
                f"{beside.id_type} {beside.subject_ref}, of {beside.events} events",
                beside.together,
            )
            for beside in await store.beside(refs, ALIASES_MAX)
            if beside.together >= _ALIAS_SHARE * beside.events
        ]
        return found, refs

    rows, refs = call_store(settings, count)
    documents = ElasticIndex(settings).count(refs) if refs else 0
    return [*rows, _row("index", "documents", documents)]


def _row(store: str, what: str, count: int) -> Row:
    return {"store": store, "what": what, "count": count}


def approve(settings: Settings, request_id: UUID) -> Request:
    """Allow a request, as the operator who runs the command. Raises as ``ErasureStore.approve``."""

    async def allow(store: ErasureStore) -> Request:
        await store.approve(request_id, operator_of(settings))
        return await store.get(request_id)

    return call_store(settings, allow)


def withdraw(settings: Settings, request_id: UUID) -> bool:
    """Take back a request that has not begun; False: it has."""
    return call_store(
        settings,
        lambda store: store.move(request_id, State.WITHDRAWN, of=[State.REQUESTED, State.APPROVED]),
    )


def find(settings: Settings, request_id: UUID) -> Request:
    """One request. Raises ``ConfigurationError``: there is none."""
    return call_store(settings, lambda store: store.get(request_id))


def every(settings: Settings) -> list[Request]:
    """All requests, the oldest first."""
    return call_store(settings, lambda store: store.all(LISTED_MAX))


def run(settings: Settings, request_id: UUID) -> Request:
    """Carry out what is left of a request, up to its certificate; of one that has it, what may take long:
    see ``Erasure.settle``.

    Raises:
        Pending: It waits for something that takes longer; run it again.
        Unavailable: A store is down; run it again.
    """

    async def erase() -> Request:
        with progress("erasing", len(FIRST_RUN)) as bar:
            async with open_tools(settings, _steps_on(bar)) as tools:
                erasure = Erasure(tools, request_id)
                before = await tools.store.get(request_id)
                if before.state not in (State.INACCESSIBLE, State.COMPLETE):
                    return await erasure.run()
                try:
                    return await erasure.settle()
                except Pending:
                    return await tools.store.get(request_id)

    return asyncio.run(erase())


def reapply(settings: Settings) -> list[Reapplied]:
    """Apply again what a restored database lost; workers must be stopped.

    Raises:
        ConfigurationError: A command has no leaf that allows it.
        Unavailable: A server does not answer; run it again.
    """

    async def again() -> list[Reapplied]:
        async with open_tools(settings, lambda _step: None) as tools, object_store(settings) as s3:
            return await reapply_lost(tools, archive_reader(settings, s3))

    return asyncio.run(again())


def request_row(request: Request) -> Row:
    """For output."""
    return {
        "request": str(request.request_id),
        "state": request.state,
        "tenant": request.tenant,
        "identifiers": len(request.subject_hashes),
        "requested_by": request.requested_by,
        "approved_by": request.approved_by,
        "erased_at": _text(request.erased_at),
        "inaccessible_since": _text(request.inaccessible_since),
        "gone_by": _text(request.gone_by),
        "pending": request.pending,
    }


def step_rows(request: Request) -> list[Row]:
    """For output: each step, in order, and when it was done."""
    return [
        {
            "step": step,
            "done_at": str(request.steps[step]["at"]) if step in request.steps else None,
            "counts": ", ".join(
                f"{name} {value}"
                for name, value in sorted(request.steps.get(step, {}).items())
                if isinstance(value, int) and not isinstance(value, bool)
            ),
        }
        for step in FIRST_RUN
    ]


def call_store(settings: Settings, ask: Callable[[ErasureStore], Awaitable[Answer]]) -> Answer:
    """One coroutine on the requests, over a connection of its own."""

    async def call() -> Answer:
        store = ErasureStore(redactor_url(settings), timeout_s=settings.request_timeout_s)
        try:
            return await ask(store)
        finally:
            await store.close()

    return asyncio.run(call())


@asynccontextmanager
async def open_tools(settings: Settings, on_step: Callable[[str], None]) -> AsyncIterator[Tools]:
    """Everything that the steps use, closed afterwards."""
    provider = load_provider(settings)
    keys_of_file = active_keys(read_keys(settings.signing_key_file))
    seeds = load_seed_provider(settings)
    signers = [open_signer(seeds, key) for key in keys_of_file]
    url = settings.database_url.get_secret_value()
    timeout_s = settings.request_timeout_s
    async with AsyncExitStack() as stack:
        store = ErasureStore(redactor_url(settings), timeout_s=timeout_s)
        ledger = PostgresLedger(url, timeout_s=timeout_s, late_after_s=settings.late_after_s)
        subjects = SubjectStore(url, timeout_s=timeout_s)
        for part in (store, ledger, subjects):
            stack.push_async_callback(part.close)
        objects = await stack.enter_async_context(object_store(settings))
        vault = Vault(objects, settings.s3_vault_bucket)
        client = index_client(settings)
        stack.push_async_callback(client.close)
        yield Tools(
            store=store,
            ledger=ledger,
            keys=subjects,
            opener=BlobOpener(opening_keys(settings, provider, subjects)),
            vault=vault,
            escrow=KeyEscrow(subjects, vault),
            overwriter=IndexRewriter(
                client,
                Documents(late_after_s=settings.late_after_s),
                store.next_rewrite,
                prefix=settings.index_prefix,
                retry_first_s=settings.retry_first_s,
                retry_max_s=settings.retry_max_s,
            ),
            brokers=KafkaBrokers(settings, provider),
            index=ElasticIndex(settings),
            signers=signers,
            bounds=Bounds(
                wait_s=settings.erasure_wait_s,
                look_s=_LOOK_S,
                letters_days=LETTER_DAYS,
                raw_days=RAW_DAYS,
                backups_days=settings.erasure_backup_days,
            ),
            on_step=on_step,
            sleep=asyncio.sleep,
        )


def _hashes(provider: KeyProvider, subjects: Sequence[Subject]) -> tuple[list[bytes], list[bytes]]:
    """Of the subjects, and of the keys that raw records of theirs have."""
    raw_keys = sorted({f"{subject.tenant}/{subject.id}" for subject in subjects})
    return (
        [provider.mac(subject_message(subject)) for subject in subjects],
        [provider.mac(key.encode()) for key in raw_keys],
    )


def _steps_on(bar: Progress) -> Callable[[str], None]:
    return lambda _step: bar.advance()


def _text(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
