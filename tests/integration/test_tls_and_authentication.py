"""Every connection over TLS with a password: it works, and a wrong setting is said without secrets.

Starts a broker and a database itself. Registry, index and object store are those of the running
stack, behind lines that end TLS and, for the first two, check a password. Keys are wrapped by a
key service that speaks as AWS KMS.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from agents.identity import TopicFacts
from pipeline.codec.registry import SchemaRegistry
from pipeline.domain.errors import AuditTrailError, ConfigurationError, Unavailable
from pipeline.entrypoints.cli import doctor_access
from pipeline.entrypoints.cli.compare import compare_stores
from pipeline.entrypoints.cli.dead_letters import read_letters
from pipeline.entrypoints.cli.doctor_keys import key_files, tenant_keys
from pipeline.entrypoints.cli.kafka import admin_client, producer
from pipeline.entrypoints.cli.registry import RegistryClient
from pipeline.entrypoints.cli.setup_steps import run_steps
from pipeline.entrypoints.cli.stores import object_store, searching
from pipeline.entrypoints.cli.topics import check_topics, create_topics, topic_specs
from pipeline.settings import Settings, load_settings
from pipeline.tls import checked_ca_file, client_context
from sinks import bulk
from sinks.ledger import PostgresLedger
from tests.kms_server import key_service
from tests.tls_lines import Authority, secured_line
from tests.tls_support import READER, ROOT, Secured, secured_servers

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.timeout(180),
]

EVENTS = 300
KEY_ID = "0d6a9f62-8f0a-4cbd-8a5e-2f1f6d3c9b01"
REFUSED_WITHIN_S = 1.5
WRONG = "wrong-password-that-nobody-may-see"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if "AUDIT_KAFKA_BOOTSTRAP" not in os.environ:
        pytest.skip("no servers: start the local stack and export its audit.env")
    plain = load_settings()
    folder = tmp_path_factory.mktemp("tls")
    name = f"tls-{secrets.token_hex(4)}"
    authority = Authority(folder, "ca")
    with ExitStack() as stack:
        made = stack.enter_context(secured_servers(folder / "servers", authority))
        ca_file = str(authority.ca_file)
        for part, url in (
            ("REGISTRY", plain.registry_url),
            ("ELASTICSEARCH", plain.elasticsearch_url),
        ):
            password = secrets.token_urlsafe(18)
            made.secrets.append(password)
            line = secured_line(authority, url, user="audit", password=password)
            made.variables |= {
                f"AUDIT_{part}_URL": stack.enter_context(line),
                f"AUDIT_{part}_USERNAME": "audit",
                f"AUDIT_{part}_PASSWORD": password,
                f"AUDIT_{part}_CA_FILE": ca_file,
            }
        made.variables |= {
            "AUDIT_S3_ENDPOINT_URL": stack.enter_context(
                secured_line(authority, plain.s3_endpoint_url)
            ),
            "AUDIT_S3_CA_FILE": ca_file,
            "AUDIT_S3_ARCHIVE_BUCKET": f"{name}-archive",
            "AUDIT_S3_VAULT_BUCKET": f"{name}-vault",
            "AUDIT_INDEX_PREFIX": name,
            "AUDIT_HTTP_PORT": "0",
        }
        made.secrets.append(plain.s3_secret_access_key.get_secret_value())
        service = stack.enter_context(key_service(KEY_ID))
        made.variables |= {
            "AUDIT_KMS_KEY_ID": KEY_ID,
            "AUDIT_KMS_ENDPOINT_URL": stack.enter_context(secured_line(authority, service.url)),
            "AUDIT_KMS_MAC_KEY_FILE": str(folder / "mac-key"),
            "AWS_CA_BUNDLE": ca_file,
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(18),
        }
        made.secrets.append(made.variables["AWS_SECRET_ACCESS_KEY"])
        yield made


@pytest.fixture
def settings(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in secured.variables.items():
        monkeypatch.setenv(name, value)
    return load_settings(request_timeout_s=REFUSED_WITHIN_S)


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of an authority that signed nothing."""
    return Authority(tmp_path_factory.mktemp("other"), "other").ca_file


def run(secured: Secured, *words: str, **changes: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", *words],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **secured.variables, **changes},
        cwd=ROOT,
        timeout=120,
    )


@pytest.mark.usefixtures("settings")
def test_events_reach_every_store_over_tls_with_passwords(secured: Secured, tmp_path: Path) -> None:
    settings = load_settings()  # which waits as long as the worker does
    ids_file = tmp_path / "ids.tsv"
    mac_key = run(secured, "mac-key", secured.variables["AUDIT_KMS_MAC_KEY_FILE"])
    assert mac_key.returncode == 0, mac_key.stderr.decode()
    assert {outcome.status for outcome in run_steps(settings)} == {"ok"}
    load = ["generate", "--count", str(EVENTS), "--create-tenants", "--ids-file", str(ids_file)]
    done = run(secured, *load)
    assert done.returncode == 0, done.stderr.decode()
    sending = producer(settings)
    sending.produce("audit.raw.authentication", value=b"no event", key=b"-")
    assert sending.flush(10) == 0

    worker = run(secured, "worker", AUDIT_DRAIN="true")

    assert worker.returncode == 0, worker.stderr.decode()
    comparison = compare_stores(settings, ids_file)
    assert comparison.equal, comparison.as_dict()
    assert len(comparison.leaves) == EVENTS
    # A letter is sealed under a key of the database and published by the worker's own producer.
    assert [letter.label.reason for letter in read_letters(settings)] == ["wrong_magic"]
    [kms, *_] = [found for found in key_files(settings) if found.check == "kms key"]
    assert (kms.status, {found.status for found in tenant_keys(settings)}) == ("ok", {"ok"})
    for secret in secured.secrets:
        assert secret.encode() not in worker.stderr + worker.stdout


def test_the_servers_take_nobody_without_tls_or_password(settings: Settings) -> None:
    url = settings.database_url.get_secret_value()
    plain_kafka = settings.model_copy(
        update={"kafka_security_protocol": "PLAINTEXT", "request_timeout_s": 1.0}
    )

    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(url.replace("verify-full", "disable"))
    with pytest.raises(Unavailable):
        check_topics(admin_client(plain_kafka), topic_specs(plain_kafka), 1.0)
    with (
        pytest.raises(ConfigurationError, match="401"),
        RegistryClient(settings.model_copy(update={"registry_username": ""})) as registry,
    ):
        registry.subjects()


async def reach_broker(settings: Settings) -> None:
    await TopicFacts(settings).reach()


async def list_topics(settings: Settings) -> None:
    check_topics(admin_client(settings), topic_specs(settings), settings.request_timeout_s)


async def open_ledger(settings: Settings) -> None:
    ledger = PostgresLedger(
        settings.database_url.get_secret_value(), timeout_s=settings.request_timeout_s
    )
    try:
        await ledger.open()
    finally:
        await ledger.close()


async def read_schema(settings: Settings) -> None:
    registry = SchemaRegistry(
        settings.registry_url,
        username=settings.registry_username,
        password=settings.registry_password.get_secret_value(),
        tls=client_context(settings.registry_ca_file, "AUDIT_REGISTRY_CA_FILE"),
        timeout_s=settings.request_timeout_s,
    )
    await registry.open()
    try:
        await registry.by_id(1, "any")
    finally:
        await registry.close()


async def list_subjects(settings: Settings) -> None:
    with RegistryClient(settings) as registry:
        registry.subjects()


async def prepare_index(settings: Settings) -> None:
    client = bulk.connect(
        settings.elasticsearch_url,
        username=settings.elasticsearch_username,
        password=settings.elasticsearch_password.get_secret_value(),
        ca_file=checked_ca_file(settings.elasticsearch_ca_file, "AUDIT_ELASTICSEARCH_CA_FILE"),
        timeout_s=settings.request_timeout_s,
    )
    try:
        await bulk.prepare_index(client, settings.index_prefix, replicas=0, refresh_s=1.0)
    finally:
        await client.close()


async def search_health(settings: Settings) -> None:
    with searching(settings) as client:
        client.cluster.health()


async def list_objects(settings: Settings) -> None:
    async with object_store(settings) as store:
        await store.head(settings.s3_archive_bucket, "nothing")


Reach = Callable[[Settings], Awaitable[None]]


def wrong_password_in_url(settings: Settings) -> dict[str, Any]:
    parts = psycopg.conninfo.conninfo_to_dict(settings.database_url.get_secret_value())
    return {"database_url": psycopg.conninfo.make_conninfo(**{**parts, "password": WRONG})}


@pytest.mark.parametrize(
    ("reach", "change", "error", "says"),
    [
        (reach_broker, "kafka_password", ConfigurationError, "AUDIT_KAFKA_PASSWORD"),
        (list_topics, "kafka_password", ConfigurationError, "AUDIT_KAFKA_PASSWORD"),
        (open_ledger, "database_url", Unavailable, "password authentication failed"),
        (read_schema, "registry_password", Unavailable, "AUDIT_REGISTRY_PASSWORD"),
        (list_subjects, "registry_password", ConfigurationError, "401"),
        (prepare_index, "elasticsearch_password", ConfigurationError, "401"),
        (search_health, "elasticsearch_password", ConfigurationError, "401"),
        (list_objects, "s3_secret_access_key", ConfigurationError, "403|SignatureDoesNotMatch"),
    ],
)
async def test_a_wrong_password_is_said_without_the_password(
    reach: Reach,
    change: str,
    error: type[AuditTrailError],
    says: str,
    settings: Settings,
    secured: Secured,
) -> None:
    wrong = wrong_password_in_url(settings) if change == "database_url" else {change: WRONG}

    with pytest.raises(error, match=says) as refused:
        await reach(load_settings(request_timeout_s=REFUSED_WITHIN_S, **wrong))

    assert not [secret for secret in (WRONG, *secured.secrets) if secret in str(refused.value)]


@pytest.mark.parametrize(
    ("reach", "setting", "error"),
    [
        (reach_broker, "kafka_ca_file", ConfigurationError),
        (list_topics, "kafka_ca_file", ConfigurationError),
        (read_schema, "registry_ca_file", Unavailable),
        (list_subjects, "registry_ca_file", Unavailable),
        (prepare_index, "elasticsearch_ca_file", Unavailable),
        (search_health, "elasticsearch_ca_file", Unavailable),
        (list_objects, "s3_ca_file", Unavailable),
    ],
)
async def test_an_unknown_authority_is_said_with_its_setting(
    reach: Reach,
    setting: str,
    error: type[AuditTrailError],
    settings: Settings,
    other_authority: Path,
    secured: Secured,
) -> None:
    says = rf"certificate verify failed.*\(AUDIT_{setting.upper()}\)"

    with pytest.raises(error, match=says) as refused:
        await reach(settings.model_copy(update={setting: other_authority}))

    assert not [secret for secret in secured.secrets if secret in str(refused.value)]


async def test_an_unknown_authority_of_the_database_is_said(
    settings: Settings, other_authority: Path, secured: Secured
) -> None:
    url = settings.database_url.get_secret_value().replace(
        str(secured.authority.ca_file), str(other_authority)
    )

    with pytest.raises(Unavailable, match="certificate verify failed") as refused:
        await open_ledger(load_settings(request_timeout_s=REFUSED_WITHIN_S, database_url=url))

    assert not [secret for secret in secured.secrets if secret in str(refused.value)]


def test_a_worker_that_the_broker_refuses_ends_and_names_the_setting(secured: Secured) -> None:
    worker = run(
        secured, "worker", AUDIT_KAFKA_PASSWORD=WRONG, AUDIT_REQUEST_TIMEOUT_S=str(REFUSED_WITHIN_S)
    )

    assert worker.returncode == 2, worker.stderr.decode()
    assert b"AUDIT_KAFKA_PASSWORD" in worker.stderr
    assert not [s for s in (WRONG, *secured.secrets) if s.encode() in worker.stderr]


@pytest.mark.usefixtures("settings")
def test_the_doctor_names_what_a_principal_may_not_do() -> None:
    settings = load_settings()
    reader = load_settings(kafka_username=READER)
    admin = admin_client(settings)
    create_topics(admin, topic_specs(settings), replicas=1, fix=False, timeout_s=10)
    assert [finding.status for finding in doctor_access.kafka(settings)] == ["ok"]
    with pytest.raises(ConfigurationError, match=r"topic audit\.raw"):
        doctor_access.kafka(reader)  # it may not even know that they are there

    for kind, name in ((ResourceType.TOPIC, "audit."), (ResourceType.GROUP, "audit-")):
        rule = AclBinding(
            kind,
            name,
            ResourcePatternType.PREFIXED,
            f"User:{READER}",
            "*",
            AclOperation.READ,
            AclPermissionType.ALLOW,
        )
        admin.create_acls([rule])[rule].result(10)

    (finding,) = doctor_access.kafka(reader)
    assert finding.status == "fail"
    assert (
        finding.detail == "lacks WRITE on topic audit.dead-letter, WRITE on topic audit.key-journal"
    )
