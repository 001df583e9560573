"""What topics must be, and which schemas may be registered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import BrokerMetadata, ClusterMetadata, PartitionMetadata, TopicMetadata

import avro_schemas
from pipeline.domain import logs
from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli import doctor_kafka
from pipeline.entrypoints.cli.schemas import (
    Candidate,
    candidate_from,
    changed_marks,
    shipped,
    suspects,
    unusable,
)
from pipeline.entrypoints.cli.topics import TopicSpec, thin_topics, topic_specs
from pipeline.settings import load_settings

MIB = 1024 * 1024


def specs() -> dict[str, TopicSpec]:
    return {spec.name: spec for spec in topic_specs(load_settings(replication_factor=3))}


def changed(family: str, **fields: Any) -> Candidate:
    """The family's schema with fields added."""
    schema = avro_schemas.load(family)
    schema["fields"] += [{"name": name, **field} for name, field in fields.items()]
    return Candidate(family, json.dumps(schema))


def a_cluster(brokers: int, replicas: int) -> ClusterMetadata:
    cluster = ClusterMetadata()
    cluster.brokers = dict.fromkeys(range(brokers), BrokerMetadata())
    for name in specs():
        cluster.topics[name] = TopicMetadata()
        for number in range(2):
            one = cluster.topics[name].partitions[number] = PartitionMetadata()
            one.replicas = list(range(replicas))
    return cluster


@pytest.mark.parametrize(
    ("brokers", "replicas", "enough"),
    [(1, 1, True), (2, 1, False), (2, 2, True), (3, 1, False), (3, 2, False), (5, 3, True)],
)
def test_topics_with_fewer_replicas_than_the_brokers_could_hold_are_warned_of(
    brokers: int, replicas: int, enough: bool
) -> None:
    said = thin_topics(a_cluster(brokers, replicas), list(specs().values()), 3)

    assert (said == "") is enough
    if not enough:
        assert f"have {replicas} replicas where {brokers} brokers could hold" in said
    (found, *_) = doctor_kafka.replicas(said) or [None]
    assert (found is None) is enough
    if found is not None:
        assert found.status == "warn"
        assert "AUDIT_REPLICATION_FACTOR" in found.what_to_do


def test_one_topic_that_came_from_elsewhere_is_found() -> None:
    cluster = a_cluster(3, 3)
    cluster.topics["audit.raw.authentication"].partitions[1].replicas = [2]

    assert thin_topics(cluster, list(specs().values()), 3).startswith("1 topics have 1 replicas")


def test_topics_that_are_not_there_yet_count_with_the_replicas_that_they_will_have() -> None:
    cluster, all_topics = a_cluster(3, 3), list(specs().values())
    cluster.topics.clear()

    assert thin_topics(cluster, all_topics, 3) == ""
    assert thin_topics(cluster, all_topics, 1).startswith(f"{len(all_topics)} topics have 1")


def test_every_topic_of_the_domain_is_made() -> None:
    named = {value for name, value in vars(logs).items() if name.endswith("_TOPIC")}

    assert {*named, *logs.RAW_TOPICS} <= set(specs())


def test_raw_topics_are_judged_by_the_brokers_clock() -> None:
    for topic in (*logs.RAW_TOPICS, logs.SYSTEM_TOPIC):
        assert specs()[topic].config["message.timestamp.type"] == "LogAppendTime"


def test_a_letter_fits_whatever_record_a_worker_inflates() -> None:
    record_bytes = load_settings().inflate_max_bytes
    letter_max = int(specs()[logs.DEAD_LETTER_TOPIC].config["max.message.bytes"])

    # A key and headers of that size are longest: in base64, inside JSON.
    assert letter_max >= record_bytes * 4 // 3 + MIB


def test_keys_are_kept_for_ever_and_requests_compacted() -> None:
    assert specs()[logs.KEY_JOURNAL_TOPIC].config["retention.ms"] == "-1"
    assert specs()[logs.KEY_JOURNAL_TOPIC].config["cleanup.policy"] == "delete"
    assert specs()[logs.REDACTIONS_TOPIC].config["cleanup.policy"] == "compact"


def test_an_acknowledgement_means_more_than_one_replica() -> None:
    assert {spec.config["min.insync.replicas"] for spec in specs().values()} == {"2"}


@pytest.mark.parametrize("family", avro_schemas.families())
def test_what_is_shipped_can_be_decoded_by_the_worker(family: str) -> None:
    (candidate,) = shipped([family])

    assert unusable(candidate) == []


def test_a_family_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ConfigurationError, match=r"login.*authentication"):
        shipped(["login"])


def test_an_undecodable_candidate_says_why() -> None:
    recursive = {"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]}

    assert "cannot decode" in unusable(Candidate("authentication", json.dumps(recursive)))[0]


@pytest.mark.parametrize("field", ["imported", "severity", "event_id"])
def test_a_candidate_without_what_the_worker_reads_of_every_event_says_so(field: str) -> None:
    schema = avro_schemas.load("authentication")
    schema["fields"] = [each for each in schema["fields"] if each["name"] != field]

    problems = unusable(Candidate("authentication", json.dumps(schema)))

    assert problems == [f"the worker cannot decode it: no field {field}"]


def test_a_mark_of_personal_data_cannot_be_taken_back() -> None:
    earlier = changed("authentication", email={"type": "string", "pii": "actor", "default": ""})
    later = changed("authentication", email={"type": "string", "pii": "none", "default": ""})

    assert changed_marks([earlier.text], later) == [
        "email: pii was 'actor' and cannot become 'none'"
    ]
    assert changed_marks([later.text], earlier) == []
    assert changed_marks([earlier.text], earlier) == []


def test_personal_data_cannot_become_another_persons() -> None:
    earlier = changed("authentication", email={"type": "string", "pii": "target", "default": ""})
    others = changed("authentication", email={"type": "string", "pii": "subject", "default": ""})
    unmarked = changed("authentication", email={"type": "string", "default": ""})

    assert changed_marks([earlier.text], others) == [
        "email: pii was 'target' and cannot become 'subject'"
    ]
    assert changed_marks([earlier.text], unmarked) == [
        "email: pii was 'target' and cannot become 'actor'"
    ]


def test_what_most_likely_broke_compatibility_is_named() -> None:
    plain = changed("authentication")
    must = changed("authentication", must={"type": "string"})
    may = changed("authentication", may={"type": "string", "default": ""})

    assert suspects(plain.text, must.text) == ["must: added without a default"]
    assert suspects(must.text, plain.text) == ["must: removed, and had no default"]
    assert suspects(plain.text, may.text) == []


def test_a_candidate_must_be_json(tmp_path: Path) -> None:
    file = tmp_path / "x.avsc"
    file.write_text("{")

    with pytest.raises(ConfigurationError, match="not a readable JSON file"):
        candidate_from(file, "authentication")
