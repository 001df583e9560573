"""What prepares batches, made from settings: registry, decoders, sealing policy, judge."""

from __future__ import annotations

import json
import logging
import socket
from contextlib import AsyncExitStack

import avro_schemas
from pipeline.codec.decoders import Decoders
from pipeline.codec.judge import Horizon
from pipeline.codec.limits import Limits
from pipeline.codec.policy import SealingPolicy
from pipeline.codec.registry import RegisteredSchema, SchemaRegistry
from pipeline.contracts.compatibility import fingerprint
from pipeline.contracts.registry_check import differences
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import family_of, subject_of
from pipeline.keys.provider import read_key_file
from pipeline.keys.subjects import SubjectKeys
from pipeline.logging import log_event
from pipeline.settings import Settings
from pipeline.tls import client_context
from sinks.prepare import Preparer
from sinks.recorded_schemas import RecordedSchema, RecordedSchemas

log = logging.getLogger(__name__)


def limits_of(settings: Settings) -> Limits:
    """The judge's limits."""
    return Limits(
        event_bytes=settings.event_max_bytes,
        text_chars=settings.text_max_chars,
        label_key_bytes=settings.label_key_max_bytes,
        label_value_bytes=settings.label_value_max_bytes,
        items=settings.items_max,
        changes=settings.changes_max,
    )


def policies() -> dict[str, SealingPolicy]:
    """The sealing policy of each family: what this repository's schemas mark."""
    return {
        family: SealingPolicy.of(
            (leaf.path, leaf.kind, leaf.pii) for leaf in avro_schemas.leaves(family)
        )
        for family in avro_schemas.families()
    }


async def open_registry(settings: Settings, stack: AsyncExitStack) -> SchemaRegistry:
    """A registry client, which ``stack`` closes; it asks nothing yet."""
    registry = SchemaRegistry(
        settings.registry_url,
        username=settings.registry_username,
        password=settings.registry_password.get_secret_value(),
        tls=client_context(settings.registry_ca_file, "AUDIT_REGISTRY_CA_FILE"),
        timeout_s=settings.request_timeout_s,
    )
    await registry.open()
    stack.push_async_callback(registry.close)
    return registry


async def check_registry(registry: SchemaRegistry, recorded: RecordedSchemas) -> None:
    """Compare the registry with what the ledger recorded of it.

    Raises:
        ConfigurationError: It says otherwise; nothing may be decoded by it.
        Unavailable: One of the two does not answer.
    """

    async def ask(schema_id: int, subject: str) -> str:
        return (await registry.by_id(schema_id, subject)).text

    found = await differences(await recorded.all(), ask)
    if found:
        raise ConfigurationError(
            f"{'; '.join(found)}: bring back the registry that gave these ids"
            " (docs/runbooks/schema-registry.md)"
        )


def make_preparer(
    settings: Settings, registry: SchemaRegistry, keys: SubjectKeys, recorded: RecordedSchemas
) -> Preparer:
    """What decodes, judges and seals; a schema is recorded before the first event of it is decoded."""
    limits = limits_of(settings)
    import_key = None
    if settings.import_key_file is not None:
        import_key = read_key_file(settings.import_key_file, "AUDIT_IMPORT_KEY_FILE")

    async def keep(topic: str, schema: RegisteredSchema) -> None:
        subject = subject_of(topic)
        await recorded.record(
            RecordedSchema(
                schema.schema_id,
                subject,
                schema.versions[subject],
                family_of(topic),
                schema.text,
                fingerprint(json.loads(schema.text)),
                f"worker@{socket.gethostname()}",
            )
        )
        log_event(log, "schema_compiled", topic=topic, schema_id=schema.schema_id)

    return Preparer(
        Decoders(registry, policies(), limits, keep=keep),
        keys,
        limits=limits,
        horizon=Horizon.of(
            future_s=settings.future_tolerance_s,
            retention_days=settings.retention_days,
            import_retention_days=settings.import_retention_days,
        ),
        import_key=import_key,
    )
