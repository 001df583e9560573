"""The topics of the trail: what they must be, what they are, and how they become so.

A topic that exists with other settings is reported, never changed unasked: retention and size
limits decide what is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined] # public, but not in __all__
    AlterConfigOpType,
    ClusterMetadata,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from pipeline.domain import logs
from pipeline.entrypoints.cli.kafka import Admin, kafka_errors

if TYPE_CHECKING:
    from pipeline.settings import Settings

DOCTOR_TOPIC: Final = "audit.doctor"
# One may be down and another lost, and acks=all still means two.
ENOUGH_REPLICAS: Final = 3
MORE_REPLICAS: Final = (
    "set AUDIT_REPLICATION_FACTOR before topics are made; give those that are there more replicas"
    " (kafka-reassign-partitions), then run: audit-trail topics create --fix"
)
_HOUR_MS: Final = 3_600_000
RAW_DAYS: Final = 7
LETTER_DAYS: Final = 30
_DAY_MS: Final = 24 * _HOUR_MS
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it must be; configuration that is not named is the cluster's business."""

    name: str
    partitions: int
    config: dict[str, str]


@dataclass(frozen=True, slots=True)
class TopicState:
    """How one topic stands: ``ok``, ``missing``, ``differs``, ``created`` or ``fixed``."""

    name: str
    partitions: int
    state: str
    detail: str = ""


def topic_specs(settings: Settings) -> list[TopicSpec]:
    """Every topic, raw ones first."""
    # Judged by the broker's clock: a producer's own timestamp would let it choose its judge.
    raw = {
        "retention.ms": str(RAW_DAYS * _DAY_MS),
        "max.message.bytes": str(16 * _MIB),
        "message.timestamp.type": "LogAppendTime",
    }
    # The limit of a raw topic is of the *compressed* batch: one record may be as long as a batch
    # may inflate, its letter is incompressible, and a key in it is a third longer (base64).
    letter_max_bytes = settings.inflate_max_bytes * 3 // 2
    specs = [
        TopicSpec(name, 1 if name == logs.SYSTEM_TOPIC else settings.raw_partitions, dict(raw))
        for name in logs.RAW_TOPICS
    ]
    specs += [
        TopicSpec(
            logs.DEAD_LETTER_TOPIC,
            settings.raw_partitions,
            {
                "retention.ms": str(LETTER_DAYS * _DAY_MS),
                "max.message.bytes": str(letter_max_bytes),
            },
        ),
        TopicSpec(logs.REDACTIONS_TOPIC, 1, {"cleanup.policy": "compact"}),
        # Where Faust keeps the tombstones that every worker holds.
        TopicSpec(logs.changelog_topic(settings.consumer_group), 1, {"cleanup.policy": "compact"}),
        # Twice the longest window of a rule, which is a day.
        TopicSpec(logs.SIGNALS_TOPIC, settings.raw_partitions, {"retention.ms": str(2 * _DAY_MS)}),
        TopicSpec(logs.ALERTS_TOPIC, 1, {"retention.ms": str(30 * _DAY_MS)}),
        TopicSpec(logs.KEY_JOURNAL_TOPIC, 1, {"retention.ms": "-1", "retention.bytes": "-1"}),
        # Where ``doctor`` reads the broker's clock; nothing else is ever written there.
        TopicSpec(
            DOCTOR_TOPIC,
            1,
            {"retention.ms": str(_HOUR_MS), "message.timestamp.type": "LogAppendTime"},
        ),
    ]
    # acks=all means little if one replica in sync is enough.
    durable = {
        "min.insync.replicas": str(max(1, settings.replication_factor - 1)),
        "unclean.leader.election.enable": "false",
    }
    for spec in specs:
        spec.config.setdefault("cleanup.policy", "delete")
        spec.config.update(durable)
    return specs


def check_topics(admin: Admin, specs: Sequence[TopicSpec], timeout_s: float) -> list[TopicState]:
    """How each topic stands; changes nothing.

    Raises:
        Unavailable: The brokers do not answer.
        ConfigurationError: They refuse.

    """
    with kafka_errors("listing topics", admin):
        found = admin.list_topics(timeout=timeout_s).topics
    present = [spec for spec in specs if spec.name in found]
    configs = _configs(admin, [spec.name for spec in present], timeout_s)
    return [
        _state(spec, found[spec.name], configs[spec.name])
        if spec.name in found
        else TopicState(spec.name, spec.partitions, "missing")
        for spec in specs
    ]


def too_few_replicas(admin: Admin, settings: Settings) -> str:
    """What to know of topics with fewer replicas than the cluster has brokers for; empty: there are none.

    Raises as ``check_topics``.
    """
    with kafka_errors("listing topics", admin):
        cluster = admin.list_topics(timeout=settings.request_timeout_s)
    return thin_topics(cluster, topic_specs(settings), settings.replication_factor)


def thin_topics(cluster: ClusterMetadata, specs: Sequence[TopicSpec], to_be: int) -> str:
    """The same of a cluster as it describes itself; what is not there yet will have ``to_be``."""
    enough = min(len(cluster.brokers), ENOUGH_REPLICAS)
    thin = [
        fewest
        for spec in specs
        if (fewest := _replicas(cluster.topics.get(spec.name), to_be)) < enough
    ]
    if not thin:
        return ""
    return (
        f"{len(thin)} topics have {min(thin)} replicas where {len(cluster.brokers)} brokers could hold"
        f" {enough}: acks=all promises no more than that"
    )


def _replicas(found: TopicMetadata | None, to_be: int) -> int:
    """Of the partition that has fewest."""
    partitions = found.partitions.values() if found is not None else ()
    return min((len(one.replicas) for one in partitions), default=to_be)


def create_topics(
    admin: Admin, specs: Sequence[TopicSpec], *, replicas: int, fix: bool, timeout_s: float
) -> list[TopicState]:
    """Create what is missing; with ``fix`` give existing topics their configuration too.

    Partitions are never added: the key of a record would then map to another log.

    Raises:
        Unavailable: The brokers do not answer.
        ConfigurationError: They refuse.

    """
    states = {state.name: state for state in check_topics(admin, specs, timeout_s)}
    missing = [spec for spec in specs if states[spec.name].state == "missing"]
    if missing:
        _create(admin, missing, replicas, timeout_s)
    differing = [spec for spec in specs if states[spec.name].state == "differs"]
    if fix and differing:
        _alter(admin, differing, timeout_s)
        after = {state.name: state for state in check_topics(admin, differing, timeout_s)}
        states.update({name: _fixed(state, states[name]) for name, state in after.items()})
    for spec in missing:
        states[spec.name] = TopicState(spec.name, spec.partitions, "created")
    return [states[spec.name] for spec in specs]


def _fixed(after: TopicState, before: TopicState) -> TopicState:
    if after.state != "ok":
        return after
    return TopicState(after.name, after.partitions, "fixed", before.detail)


def _state(spec: TopicSpec, found: TopicMetadata, config: dict[str, str]) -> TopicState:
    partitions = len(found.partitions)
    differences = [
        f"{name} is {config.get(name)}, not {wanted}"
        for name, wanted in spec.config.items()
        if config.get(name) != wanted
    ]
    if partitions != spec.partitions:
        differences.insert(0, f"{partitions} partitions, not {spec.partitions} (never changed)")
    state = "differs" if differences else "ok"
    return TopicState(spec.name, partitions, state, "; ".join(differences))


def _configs(admin: Admin, names: Iterable[str], timeout_s: float) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}
    with kafka_errors("reading topic configuration", admin):
        answers = admin.describe_configs(resources, request_timeout=timeout_s)
        return {
            resource.name: {name: entry.value for name, entry in answer.result().items()}
            for resource, answer in answers.items()
        }


def _create(admin: Admin, specs: Sequence[TopicSpec], replicas: int, timeout_s: float) -> None:
    wanted = [
        NewTopic(
            spec.name,
            num_partitions=spec.partitions,
            replication_factor=replicas,
            config=spec.config,
        )
        for spec in specs
    ]
    answers = admin.create_topics(wanted, operation_timeout=timeout_s, request_timeout=timeout_s)
    for name, answer in answers.items():
        with kafka_errors(f"creating topic {name}", admin):
            _unless_there(answer.result)


def _unless_there(result: object) -> None:
    """Somebody else may create the same topic at the same moment."""
    from confluent_kafka import KafkaError

    try:
        result()  # type: ignore[operator]
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def _alter(admin: Admin, specs: Sequence[TopicSpec], timeout_s: float) -> None:
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            spec.name,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in spec.config.items()
            ],
        )
        for spec in specs
    ]
    answers = admin.incremental_alter_configs(resources, request_timeout=timeout_s)
    for resource, answer in answers.items():
        with kafka_errors(f"configuring topic {resource.name}", admin):
            answer.result()
