"""What the servers have on their disks, as whoever carries a disk away would look at it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from pipeline.domain.logs import RAW_TOPICS
from pipeline.entrypoints.cli.kafka import admin_client
from pipeline.entrypoints.cli.kafka import producer as kafka_producer
from pipeline.importers.encode import RawRecord
from pipeline.settings import Settings

_PIECE = 4 * 1024 * 1024


def servers_folder() -> Path:
    """Where the stack's servers keep their data and their logs."""
    return Path(os.environ["AUDIT_ENV_FILE"]).parent / "servers"


def on_disk(token: str) -> dict[str, int]:
    """How many files of each server hold a token, as text or in hexadecimal."""
    wanted = (token.encode(), token.encode().hex().encode(), token.encode("utf-16-le"))
    found: Counter[str] = Counter()
    root = servers_folder()
    for server in sorted(root.iterdir()):
        if server.name in ("programs", "run"):
            continue
        for file in server.rglob("*"):
            if file.is_file() and _holds(file, wanted):
                found[server.name] += 1
    return dict(found)


def _holds(file: Path, wanted: tuple[bytes, ...]) -> bool:
    # Not mapped: a server that cuts a file short would end this process.
    overlap = max(map(len, wanted)) - 1
    tail = b""
    try:
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                seen = tail + piece
                if any(one in seen for one in wanted):
                    return True
                tail = seen[-overlap:]
    except FileNotFoundError:  # it went meanwhile
        pass
    return False


def publish_plain(settings: Settings, record: RawRecord) -> None:
    """Acknowledged, and not compressed: the broker's disk has it as it is."""
    client = kafka_producer(settings, **{"compression.type": "none"})
    client.produce(record.topic, key=record.key, value=record.value)
    assert client.flush(30) == 0


def keep_raw_for(settings: Settings, retention_ms: int) -> int:
    """Let raw topics keep records for so long; for how long they kept them before."""
    admin = admin_client(settings)
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in RAW_TOPICS]
    described = [answer.result() for answer in admin.describe_configs(resources).values()]
    entry = ConfigEntry(
        "retention.ms", str(retention_ms), incremental_operation=AlterConfigOpType.SET
    )
    changed = [
        ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for topic in RAW_TOPICS
    ]
    for answer in admin.incremental_alter_configs(changed).values():
        answer.result()
    return int(described[0]["retention.ms"].value)
