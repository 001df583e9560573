"""Partition pauses: a worker makes them, a person lifts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import RAW_TOPICS
from pipeline.entrypoints.cli.stores import call_operations

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from sinks.operations import Operations


def resume_partition(settings: Settings, topic: str, partition: int) -> str:
    """Lift the pause; returns what happened, in a sentence. Durable on return.

    Raises:
        ConfigurationError: No such topic.
        Unavailable: The database does not answer.

    """
    require_raw(topic)

    async def lift(operations: Operations) -> str:
        reasons = {
            (pause.topic, pause.partition): pause.reason for pause in await operations.pauses()
        }
        if not await operations.resume(topic, partition):
            return f"{topic}/{partition} is not paused"
        reason = reasons.get((topic, partition), "a reason that is gone")
        return f"{topic}/{partition} was paused for {reason}; the worker goes on with it now"

    return call_operations(settings, lift)


def require_raw(topic: str) -> None:
    """Raw topics alone have logs.

    Raises:
        ConfigurationError: It is none.

    """
    if topic not in RAW_TOPICS:
        raise ConfigurationError(f"{topic} is no raw topic; there are {', '.join(RAW_TOPICS)}")
