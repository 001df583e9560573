"""Kafka: one node that is broker and controller (KRaft).

A record that the broker acknowledged is in the log of the only replica; it is flushed to
disk by the operating system, as in any Kafka.

Clients of a second listener are told the port of a proxy before it, so that every connection goes
through that: the fault tests put theirs there, and otherwise nobody listens on it.
"""

import base64
import subprocess
import uuid

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from audit_stack.errors import NotReady, StackError
from audit_stack.servers.base import (
    PROBE_TIMEOUT_S,
    TOOL_OPTIONS,
    Server,
    jvm_options,
    maven_version,
)
from audit_stack.stack import Stack
from audit_stack.supervise import Command

NAME = "kafka"
# Raw topics take batches of 16 MiB, the dead letter topic 17: the broker leaves room for both.
MESSAGE_MAX_BYTES = 18 * 1024 * 1024

CONFIG = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
{listeners}log.dirs={folder}/log
auto.create.topics.enable=false
delete.topic.enable=true
message.max.bytes={message_max_bytes}
replica.fetch.max.bytes={message_max_bytes}
# One node has nobody to replicate to.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Fewer partitions of internal topics: a quick start and few open files.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=4
# Tests start and kill many consumers: no waiting for more members, short sessions allowed.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# Retention and deletion are seen within seconds, not minutes.
log.retention.check.interval.ms=10000
log.segment.delete.delay.ms=1000
log.cleaner.backoff.ms=5000
log.cleaner.dedupe.buffer.size=33554432
# After a kill the broker may register again once its old session has run out.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
"""

LISTENERS = """\
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind_proxy_port},\\
  CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
"""

LOGGING = """\
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1}: %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
# The full configuration is 300 lines at every start.
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
"""


def _class_path(stack: Stack) -> str:
    return str(stack.programs[NAME] / "*")


def _prepare(stack: Stack) -> None:
    folder = stack.account.make_folder(stack.folder(NAME))
    stack.account.make_folder(folder / "tmp")
    listeners = LISTENERS.format(
        port=stack.settings.port("kafka"),
        controller_port=stack.settings.port("kafka_controller"),
        behind_proxy_port=stack.settings.port("kafka_behind_proxy"),
        proxy_port=stack.settings.port("kafka_proxy"),
    )
    config = CONFIG.format(
        folder=folder,
        listeners=listeners,
        controller_port=stack.settings.port("kafka_controller"),
        message_max_bytes=MESSAGE_MAX_BYTES,
    )
    stack.account.write_file(folder / "server.properties", config)
    stack.account.write_file(folder / "log4j2.properties", LOGGING)
    if not (folder / "log" / "meta.properties").exists():
        _format(stack)


def _cluster_id() -> str:
    """A random UUID as Kafka writes one; one in 64 begins with a dash, which its tool takes for an option."""
    while True:
        drawn = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not drawn.startswith("-"):
            return drawn


def _format(stack: Stack) -> None:
    """Give the log folder its cluster id, which lives as long as the data."""
    folder = stack.folder(NAME)
    cluster_id = _cluster_id()
    java = [stack.java, *TOOL_OPTIONS]
    tool = ["-cp", _class_path(stack), "kafka.tools.StorageTool", "format"]
    done = subprocess.run(
        [*java, *tool, "-t", cluster_id, "-c", str(folder / "server.properties")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        **stack.account.drop_arguments(),
    )
    if done.returncode != 0:
        message = f"Kafka's storage cannot be formatted:\n{done.stdout}{done.stderr}"
        raise StackError(message)


def _command(stack: Stack) -> Command:
    folder = stack.folder(NAME)
    heap = stack.settings.kafka_heap
    return Command(
        argv=[
            stack.java,
            f"-Xms{heap}",
            f"-Xmx{heap}",
            *jvm_options(stack),
            f"-Djava.io.tmpdir={folder / 'tmp'}",
            f"-Dlog4j2.configurationFile={folder}/log4j2.properties",
            "-cp",
            _class_path(stack),
            "kafka.Kafka",
            str(folder / "server.properties"),
        ],
        directory=folder,
    )


def _probe(stack: Stack) -> None:
    """Ready: the metadata name a broker, which Kafka lists only when it is unfenced."""
    quiet = {"log_level": 0, "socket.timeout.ms": 2000}
    client = AdminClient({"bootstrap.servers": bootstrap(stack), **quiet})
    try:
        brokers = client.list_topics(timeout=PROBE_TIMEOUT_S).brokers
    except KafkaException as error:
        raise NotReady(str(error)) from error
    if not brokers:
        message = "no broker in the metadata"
        raise NotReady(message)


def bootstrap(stack: Stack) -> str:
    """Return the address for Kafka clients."""
    return f"127.0.0.1:{stack.settings.port('kafka')}"


SERVER = Server(
    name=NAME,
    title="Kafka",
    version=maven_version(NAME),
    ports=("kafka", "kafka_controller", "kafka_behind_proxy"),
    prepare=_prepare,
    command=_command,
    probe=_probe,
)
