"""The stores as the command line needs them: a client each, for one call, failures in our words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.tls import checked_ca_file, failure

if TYPE_CHECKING:
    from elasticsearch import AsyncElasticsearch, Elasticsearch

    from pipeline.keys.provider import KeyProvider
    from pipeline.keys.subjects import SubjectKeys
    from pipeline.settings import Settings
    from sinks.archive_reader import ArchiveReader
    from sinks.operations import Operations
    from sinks.s3 import S3
    from sinks.subject_store import SubjectStore

Answer = TypeVar("Answer")

_REFUSALS = (400, 401, 403, 404, 405)


@contextmanager
def searching(settings: Settings) -> Iterator[Elasticsearch]:
    """A client of the index.

    Raises:
        Unavailable: It does not answer.
        ConfigurationError: It refuses.

    """
    from elasticsearch import ApiError, Elasticsearch, TransportError

    options: dict[str, Any] = {"request_timeout": settings.request_timeout_s, "max_retries": 0}
    if settings.elasticsearch_username:
        password = settings.elasticsearch_password.get_secret_value()
        options["basic_auth"] = (settings.elasticsearch_username, password)
    ca_file = checked_ca_file(settings.elasticsearch_ca_file, "AUDIT_ELASTICSEARCH_CA_FILE")
    if ca_file is not None:
        options["ca_certs"] = ca_file
    client = Elasticsearch(settings.elasticsearch_url, **options)
    try:
        yield client
    except ApiError as error:
        # Of the answer only its kind: the body of an error quotes the request.
        kind = f"status {error.status_code} {error.message}"
        if error.status_code in _REFUSALS:
            raise ConfigurationError(f"elasticsearch refuses: {kind}") from error
        raise Unavailable("elasticsearch", kind) from error
    except TransportError as error:
        raise Unavailable("elasticsearch", failure(error, "AUDIT_ELASTICSEARCH_CA_FILE")) from error
    finally:
        client.close()


def index_client(settings: Settings) -> AsyncElasticsearch:
    """The index, as long work asks it; as ``pipeline.entrypoints.stores.connect_index``."""
    from pipeline.entrypoints.stores import connect_index

    return connect_index(settings)


def auditor_url(settings: Settings) -> str:
    """The database as the role that reads everything and decrypts nothing; as the writer where it is not set."""
    given = settings.auditor_database_url.get_secret_value()
    return given or settings.database_url.get_secret_value()


def redactor_url(settings: Settings) -> str:
    """The database as the role that alone removes. Raises ``ConfigurationError`` when it is not set."""
    url = settings.database_redactor_url.get_secret_value()
    if not url:
        raise ConfigurationError(
            "AUDIT_DATABASE_REDACTOR_URL is not set: erasure, holds, redaction and expiry are"
            " audit_redactor's"
        )
    return url


@asynccontextmanager
async def object_store(settings: Settings) -> AsyncIterator[S3]:
    """The buckets' client; its calls raise our errors already."""
    from pipeline.entrypoints.stores import make_objects

    store = make_objects(settings)
    try:
        yield store
    finally:
        await store.close()


def archive_reader(settings: Settings, objects: S3) -> ArchiveReader:
    """The archive over these objects; asks nothing yet."""
    from sinks.archive_reader import ArchiveReader

    return ArchiveReader(
        objects,
        archive_bucket=settings.s3_archive_bucket,
        vault_bucket=settings.s3_vault_bucket,
    )


def opening_keys(settings: Settings, provider: KeyProvider, store: SubjectStore) -> SubjectKeys:
    """The subjects' keys for who only opens with them, those that are there when they are asked for. To ask for one that must first be made
    (``SubjectKeys.resolve``) is a bug here: ``RuntimeError``.
    """
    from pipeline.keys.subjects import SubjectKeys

    return SubjectKeys(
        provider,
        store,
        _makes_none,
        cache_size=settings.subject_cache_size,
        epoch_of=store.erasure_epoch,
    )


async def _makes_none(_entries: object) -> None:
    raise RuntimeError("a key was made by a command that only opens")


def call_keys(settings: Settings, ask: Callable[[SubjectStore], Awaitable[Answer]]) -> Answer:
    """One coroutine on the ledger's keys and tenants, over a connection of its own."""
    from sinks.subject_store import SubjectStore

    async def call() -> Answer:
        url = settings.database_url.get_secret_value()
        store = SubjectStore(url, timeout_s=settings.request_timeout_s)
        try:
            return await ask(store)
        finally:
            await store.close()

    return asyncio.run(call())


def call_operations(settings: Settings, ask: Callable[[Operations], Awaitable[Answer]]) -> Answer:
    """One coroutine on the operators' tables, over a connection of its own."""
    from sinks.operations import Operations

    async def call() -> Answer:
        url = settings.database_url.get_secret_value()
        operations = Operations(url, timeout_s=settings.request_timeout_s)
        try:
            return await ask(operations)
        finally:
            await operations.close()

    return asyncio.run(call())
