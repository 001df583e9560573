"""A broker and a database that want TLS and a password, on loopback, from the stack's programs."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "infra" / "local"))

from audit_stack import assemble, layout, settings  # noqa: E402
from audit_stack.errors import NotReady  # noqa: E402
from audit_stack.servers import broker, database  # noqa: E402
from audit_stack.servers.base import TOOL_OPTIONS, Server  # noqa: E402
from audit_stack.stack import Stack  # noqa: E402

from tests.tls_lines import LOOPBACK, Authority  # noqa: E402

KAFKA_USER = "audit-worker"
READER = "reader"  # may do nothing until it is given something; the same password
READY_WITHIN_S = 60.0


@dataclass
class Secured:
    """How the application reaches everything; ``variables`` are AUDIT_* settings."""

    authority: Authority
    variables: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)


@contextmanager
def secured_servers(home: Path, authority: Authority) -> Iterator[Secured]:
    """A broker with SASL_SSL and SCRAM-SHA-512, and a database with TLS and SCRAM, ready."""
    ports = {f"AUDIT_STACK_{name}_PORT": str(_free_port()) for name in _PORTS}
    chosen = {"AUDIT_STACK_DIR": str(home), "AUDIT_STACK_KAFKA_HEAP": "256m", **ports}
    wanted = settings.read_settings({**os.environ, **chosen})
    place = layout.plan_layout(wanted.home, assemble.server_account(wanted.account))
    layout.claim_home(place)
    stack = assemble.assemble(wanted, {broker.NAME, database.NAME}, settings.cache_directory())
    password = secrets.token_urlsafe(18)
    running: list[subprocess.Popen[bytes]] = []
    try:
        _prepare_broker(stack, authority, password)
        running.append(_start(stack, broker.SERVER))
        _prepare_database(stack, authority)
        running.append(_start(stack, database.SERVER))
        _wait(lambda: database.SERVER.probe(stack), running)
        database.SERVER.provision(stack)
        variables = _variables(stack, authority, password)
        _wait(lambda: _broker_ready(variables), running)
        known = [password, stack.credentials.postgres_writer, stack.credentials.postgres_admin]
        yield Secured(authority, variables, known)
    finally:
        for process in running:
            process.send_signal(signal.SIGKILL)  # the data are thrown away
            process.wait(10)
        layout.remove_folders(place)


_PORTS = ("KAFKA", "KAFKA_CONTROLLER", "POSTGRES")


def _prepare_broker(stack: Stack, authority: Authority, password: str) -> None:
    account, folder = stack.account, stack.account.make_folder(stack.folder(broker.NAME))
    account.make_folder(folder / "tmp")
    account.write_file(
        folder / "server.pem", b"".join(authority.certificate_for_loopback()).decode()
    )
    account.write_file(folder / "ca.pem", authority.ca_file.read_text(encoding="ascii"))
    port = stack.settings.port("kafka")
    controller_port = stack.settings.port("kafka_controller")
    config = broker.CONFIG.format(
        folder=folder,
        listeners=f"""\
listeners=SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=SASL_SSL://127.0.0.1:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
controller.listener.names=CONTROLLER
inter.broker.listener.name=SASL_SSL
""",
        controller_port=controller_port,
        message_max_bytes=broker.MESSAGE_MAX_BYTES,
    )
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    config += f"""\
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={module} required \
username="{KAFKA_USER}" password="{password}";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{KAFKA_USER};User:ANONYMOUS
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
"""
    account.write_file(folder / "server.properties", config)
    account.write_file(folder / "log4j2.properties", broker.LOGGING)
    java = [stack.java, *TOOL_OPTIONS]
    tool = ["-cp", str(stack.programs[broker.NAME] / "*"), "kafka.tools.StorageTool", "format"]
    users = [f"SCRAM-SHA-512=[name={name},password={password}]" for name in (KAFKA_USER, READER)]
    cluster = ["-t", "c2VjdXJlZC10ZXN0LWJyb2tlcg", "-c", str(folder / "server.properties")]
    subprocess.run(
        [*java, *tool, *cluster, *(word for user in users for word in ("--add-scram", user))],
        cwd=folder,
        check=True,
        capture_output=True,
        **account.drop_arguments(),
    )


def _prepare_database(stack: Stack, authority: Authority) -> None:
    database.SERVER.prepare(stack)
    account, cluster = stack.account, stack.folder(database.NAME) / "data"
    key, certificate = authority.certificate_for_loopback()
    account.write_file(cluster / "server.key", key.decode())
    account.write_file(cluster / "server.crt", certificate.decode())
    with (cluster / "postgresql.conf").open("a", encoding="utf-8") as config:
        config.write("ssl = on\nssl_min_protocol_version = 'TLSv1.2'\n")
    # Nobody without TLS, nobody without a password.
    account.write_file(cluster / "pg_hba.conf", "hostssl all all 127.0.0.1/32 scram-sha-256\n")


def _start(stack: Stack, server: Server) -> subprocess.Popen[bytes]:
    command = server.command(stack)
    with stack.layout.log(server.name).open("wb") as log:
        return subprocess.Popen(
            command.argv,
            cwd=command.directory,
            env={"PATH": os.environ["PATH"], "HOME": str(command.directory), **command.environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            umask=0o077,
            **stack.account.drop_arguments(),
        )


def _wait(probe: Callable[[], Any], running: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        with suppress(NotReady):
            probe()
            return
        assert all(process.poll() is None for process in running), "a server ended"
        assert time.monotonic() < deadline, f"a server is not ready within {READY_WITHIN_S:.0f} s"
        time.sleep(0.2)


def _broker_ready(variables: dict[str, str]) -> None:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    client = AdminClient(
        {
            "bootstrap.servers": variables["AUDIT_KAFKA_BOOTSTRAP"],
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": KAFKA_USER,
            "sasl.password": variables["AUDIT_KAFKA_PASSWORD"],
            "ssl.ca.location": variables["AUDIT_KAFKA_CA_FILE"],
            "log_level": 0,
        }
    )
    try:
        brokers = client.list_topics(timeout=2).brokers
    except KafkaException as error:
        raise NotReady(str(error)) from error
    if not brokers:
        raise NotReady("no broker in the metadata")


def _variables(stack: Stack, authority: Authority, password: str) -> dict[str, str]:
    def url(role: str, role_password: str) -> str:
        tls = f"?sslmode=verify-full&sslrootcert={authority.ca_file}"
        return database.url(stack, role, role_password) + tls

    credentials = stack.credentials
    return {
        "AUDIT_KAFKA_BOOTSTRAP": broker.bootstrap(stack),
        "AUDIT_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "AUDIT_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "AUDIT_KAFKA_USERNAME": KAFKA_USER,
        "AUDIT_KAFKA_PASSWORD": password,
        "AUDIT_KAFKA_CA_FILE": str(authority.ca_file),
        "AUDIT_DATABASE_URL": url("audit_writer", credentials.postgres_writer),
        "AUDIT_DATABASE_ADMIN_URL": url(database.ADMIN_ROLE, credentials.postgres_admin),
        "AUDIT_DATABASE_READER_URL": url("audit_reader", credentials.postgres_reader),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
