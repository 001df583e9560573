"""Logs: one append-only sequence of leaves per raw topic-partition and epoch, and how it is named."""

from __future__ import annotations

from dataclasses import dataclass

SERVICE_FAMILIES = (
    "authentication",
    "data-access",
    "profile-update",
    "admin-action",
    "security-change",
)
SYSTEM_FAMILY = "system"  # the trail about itself
FAMILIES = (*SERVICE_FAMILIES, SYSTEM_FAMILY)
RAW_PREFIX = "audit.raw."
RAW_TOPICS = tuple(f"{RAW_PREFIX}{family}" for family in FAMILIES)
SYSTEM_TOPIC = f"{RAW_PREFIX}{SYSTEM_FAMILY}"  # one partition: its log has one order
DEAD_LETTER_TOPIC = "audit.dead-letter"
KEY_JOURNAL_TOPIC = "audit.key-journal"
REDACTIONS_TOPIC = "audit.redactions"
SIGNALS_TOPIC = "audit.signals"
ALERTS_TOPIC = "audit.alerts"

TOMBSTONES = "tombstones"  # Faust's table of people who were erased

FIRST_EPOCH = 1


def changelog_topic(consumer_group: str) -> str:
    """Where Faust keeps the tombstones: its own name for it, after the app's id."""
    return f"{consumer_group}-{TOMBSTONES}-changelog"


def subject_of(topic: str) -> str:
    """The registry subject of a raw topic's values."""
    return f"{topic}-value"


def family_of(topic: str) -> str:
    """``audit.raw.data-access`` → ``data-access``."""
    return topic.removeprefix(RAW_PREFIX)


@dataclass(frozen=True, slots=True, order=True)
class LogName:
    """``<topic>/<partition>/<epoch>``: in the database, in object keys, in checkpoint origins.

    A person opens a new epoch when the topic itself was replaced (DESIGN §2.7); the first is 1.
    """

    topic: str
    partition: int
    epoch: int = FIRST_EPOCH

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.epoch}"

    @classmethod
    def parse(cls, text: str) -> LogName:
        """Read back what ``str`` gave."""
        topic, partition, epoch = text.rsplit("/", 2)
        return cls(topic, int(partition), int(epoch))
