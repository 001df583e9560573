"""Elasticsearch: one node without plug-in modules.

Security is off because the node listens on the loopback address only; no index comes
into being by itself.
"""

from audit_stack.servers.base import Server, jvm_options, maven_version, probe_http
from audit_stack.stack import Stack
from audit_stack.supervise import Command

NAME = "elasticsearch"
# Where cores are few, the search gives way to the ledger and its broker.
NICENESS = 5

CONFIG = """\
cluster.name: audit-local
node.name: local-1
network.host: 127.0.0.1
http.port: {port}
transport.port: {transport_port}
discovery.type: single-node
path.data: {folder}/data
path.logs: {folder}/logs
path.repo: {folder}/snapshots
xpack.security.enabled: false
action.auto_create_index: false
# A developer's disk is often fuller than the watermarks; a read-only index would be a riddle.
cluster.routing.allocation.disk.threshold_enabled: false
"""

LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %marker%m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


def url(stack: Stack) -> str:
    """Return the address for Elasticsearch clients."""
    return f"http://127.0.0.1:{stack.settings.port('elasticsearch')}"


def _prepare(stack: Stack) -> None:
    account = stack.account
    folder = account.make_folder(stack.folder(NAME))
    config = account.make_folder(folder / "config")
    for name in ("data", "logs", "snapshots", "tmp"):
        account.make_folder(folder / name)
    settings = CONFIG.format(
        folder=folder,
        port=stack.settings.port("elasticsearch"),
        transport_port=stack.settings.port("elasticsearch_transport"),
    )
    account.write_file(config / "elasticsearch.yml", settings)
    account.write_file(config / "log4j2.properties", LOGGING)
    heap = stack.settings.elasticsearch_heap
    options = [
        f"-Xms{heap}",
        f"-Xmx{heap}",
        *jvm_options(stack),
        f"-Djava.io.tmpdir={folder / 'tmp'}",
    ]
    account.write_file(config / "jvm.options", "\n".join(options) + "\n")


def _command(stack: Stack) -> Command:
    folder = stack.folder(NAME)
    return Command(
        argv=["nice", "-n", str(NICENESS), str(stack.programs[NAME] / "bin" / "elasticsearch")],
        directory=folder,
        environment={
            "ES_JAVA_HOME": str(stack.java_home),
            "ES_PATH_CONF": str(folder / "config"),
            "ES_TMPDIR": str(folder / "tmp"),
            "CLI_JAVA_OPTS": "-XX:-UsePerfData",  # of the launcher, which stays as parent
        },
        stop_timeout_s=30,
    )


def _probe(stack: Stack) -> None:
    wanted = "/_cluster/health?wait_for_status=yellow&timeout=1s"
    probe_http(url(stack) + wanted)


SERVER = Server(
    name=NAME,
    title="Elasticsearch",
    version=maven_version(NAME),
    ports=("elasticsearch", "elasticsearch_transport"),
    prepare=_prepare,
    command=_command,
    probe=_probe,
)
