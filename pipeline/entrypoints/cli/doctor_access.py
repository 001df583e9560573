"""What the servers other than PostgreSQL let the worker do; nothing is changed to find it out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import DEAD_LETTER_TOPIC, KEY_JOURNAL_TOPIC, RAW_TOPICS
from pipeline.entrypoints.cli.checks import Finding
from pipeline.entrypoints.cli.kafka import admin_client, kafka_errors
from pipeline.entrypoints.cli.stores import object_store, searching

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from sinks.s3 import S3, LockMode

TOPIC_NEEDS: Final[Mapping[str, frozenset[str]]] = {
    **{topic: frozenset({"READ"}) for topic in RAW_TOPICS},
    DEAD_LETTER_TOPIC: frozenset({"READ", "WRITE"}),
    KEY_JOURNAL_TOPIC: frozenset({"READ", "WRITE"}),
}
GROUP_NEEDS: Final = frozenset({"READ"})
# The worker puts the template and widens the mapping of the months that are there.
CLUSTER_NEEDS: Final = ("manage_index_templates",)
INDEX_NEEDS: Final = ("create_doc", "manage")
# A condition that no object meets: the server looks at the permission first.
_NO_KEY: Final = "doctor/never-stored"
_NO_ETAG: Final = '"0"'


def kafka(settings: Settings) -> Sequence[Finding]:
    """The worker may read and write its topics and join its group, as the broker counts it."""
    from confluent_kafka import TopicCollection

    admin = admin_client(settings)
    timeout: dict[str, Any] = {
        "include_authorized_operations": True,
        "request_timeout": settings.request_timeout_s,
    }
    group = settings.consumer_group
    lacking = []
    with kafka_errors("asking for permissions", admin):
        topics = admin.describe_topics(TopicCollection(list(TOPIC_NEEDS)), **timeout)
        groups = admin.describe_consumer_groups([group], **timeout)
    for topic, needed in TOPIC_NEEDS.items():
        with kafka_errors(f"topic {topic}", admin):
            found = topics[topic].result()
        lacking += _lacking(f"topic {topic}", needed, found.authorized_operations)
    with kafka_errors(f"group {group}", admin):
        found = groups[group].result()
    lacking += _lacking(f"group {group}", GROUP_NEEDS, found.authorized_operations)
    if lacking:
        advice = "grant it to the worker's principal (kafka-acls)"
        return [Finding("kafka permissions", "fail", f"lacks {', '.join(lacking)}", advice)]
    return [Finding("kafka permissions", "ok", f"topics and group {group}")]


def search(settings: Settings) -> Sequence[Finding]:
    """The worker's user may make the months' indices and put documents there."""
    from elasticsearch import ApiError

    name = "elasticsearch privileges"
    indices = f"{settings.index_prefix}-*"
    with searching(settings) as client:
        try:
            found: Any = client.security.has_privileges(
                cluster=CLUSTER_NEEDS,
                index=[{"names": [indices], "privileges": list(INDEX_NEEDS)}],
            )
        except ApiError as error:
            if error.status_code not in (400, 405):
                raise
            # What a node says that has no such interface.
            detail = "security is off: whoever reaches the server may read and change the index"
            return [Finding(name, "warn", detail, "for development only: turn security on")]
    return [index_finding(name, indices, found)]


def index_finding(name: str, indices: str, answer: Mapping[str, Any]) -> Finding:
    """From the answer of ``_security/user/_has_privileges``."""
    of_cluster, of_index = answer.get("cluster", {}), answer.get("index", {}).get(indices, {})
    lacking = [privilege for privilege in CLUSTER_NEEDS if not of_cluster.get(privilege)]
    lacking += [f"{each} on {indices}" for each in INDEX_NEEDS if not of_index.get(each)]
    if lacking:
        advice = "give the user of AUDIT_ELASTICSEARCH_USERNAME a role with them"
        return Finding(name, "fail", f"lacks {', '.join(lacking)}", advice)
    return Finding(name, "ok", f"templates, and documents in {indices}")


def buckets(settings: Settings) -> Sequence[Finding]:
    """The worker may read and write both buckets, with a lock in the archive's."""
    from sinks.s3 import Lock

    archive, vault = settings.s3_archive_bucket, settings.s3_vault_bucket
    until = datetime.now(UTC) + timedelta(days=1)

    async def check() -> list[str]:
        async with object_store(settings) as store:
            lock = Lock(cast("LockMode", settings.s3_lock_mode), until)
            return [
                *await _refusals(store, archive, lock),
                *await _refusals(store, vault, None),
            ]

    refusals = asyncio.run(check())
    name = "s3 permissions"
    if refusals:
        advice = "grant it to AUDIT_S3_ACCESS_KEY_ID"
        return [Finding(name, "fail", "; ".join(refusals), advice)]
    return [Finding(name, "ok", f"read and write {archive} and {vault}")]


async def _refusals(store: S3, bucket: str, lock: Any) -> list[str]:
    async def listed() -> None:
        async for _key in store.keys(bucket, _NO_KEY):
            pass

    asked: list[Callable[[], Awaitable[object]]] = [
        lambda: store.put(bucket, _NO_KEY, b"", if_match=_NO_ETAG, lock=lock),
        lambda: store.get(bucket, _NO_KEY),
        listed,
    ]
    found = []
    for ask in asked:
        try:
            await ask()
        except ConfigurationError as refused:
            found.append(f"{bucket}: {refused}")
    return found


def _lacking(what: str, needed: frozenset[str], granted: Sequence[Any] | None) -> list[str]:
    """``granted``: None from a broker that does not say it."""
    if granted is None:
        return []
    held = {operation.name for operation in granted}
    return [f"{operation} on {what}" for operation in sorted(needed - held)]
