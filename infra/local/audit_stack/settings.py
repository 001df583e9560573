"""Settings of the stack, read from the environment.

Every setting has a default with which the stack starts, and a bad value is refused
by name before anything is touched.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from audit_stack.errors import StackError

REPOSITORY = Path(__file__).resolve().parents[3]
PORT_MAX = 65535


@dataclass(frozen=True)
class PortSetting:
    """One listener: who listens, which variable moves it, and where it is by default."""

    key: str
    title: str
    variable: str
    default: int


# The place in this list is the distance from AUDIT_STACK_PORT_BASE: only append.
PORTS = (
    PortSetting("kafka", "Kafka", "AUDIT_STACK_KAFKA_PORT", 19092),
    PortSetting("registry", "schema registry", "AUDIT_STACK_REGISTRY_PORT", 18081),
    PortSetting("postgres", "PostgreSQL", "AUDIT_STACK_POSTGRES_PORT", 15432),
    PortSetting("elasticsearch", "Elasticsearch", "AUDIT_STACK_ELASTICSEARCH_PORT", 19200),
    PortSetting("s3", "S3 gateway", "AUDIT_STACK_S3_PORT", 17070),
    PortSetting("kafka_controller", "Kafka controller", "AUDIT_STACK_KAFKA_CONTROLLER_PORT", 19093),
    PortSetting(
        "elasticsearch_transport",
        "Elasticsearch transport",
        "AUDIT_STACK_ELASTICSEARCH_TRANSPORT_PORT",
        19300,
    ),
    PortSetting(
        "registry_management",
        "schema registry management",
        "AUDIT_STACK_REGISTRY_MANAGEMENT_PORT",
        18082,
    ),
    PortSetting("worker", "worker", "AUDIT_STACK_WORKER_PORT", 9108),
    PortSetting(
        "kafka_behind_proxy",
        "Kafka behind a proxy",
        "AUDIT_STACK_KAFKA_BEHIND_PROXY_PORT",
        19094,
    ),
    PortSetting("kafka_proxy", "a proxy before Kafka", "AUDIT_STACK_KAFKA_PROXY_PORT", 19095),
    PortSetting("signer", "signer", "AUDIT_STACK_SIGNER_PORT", 9109),
    PortSetting("keeper", "keeper", "AUDIT_STACK_KEEPER_PORT", 9111),
)
# How far the JVMs compile. Quick: a stack is up in 24 s instead of 33 on two cores, and has no
# compiler beside it that takes most of a core in the first minutes under load. Full: as in
# production, each event costs half once everything is compiled.
JIT_QUICK = "quick"
JIT_FULL = "full"
PORT_BASE_VARIABLE = "AUDIT_STACK_PORT_BASE"


@dataclass(frozen=True)
class Settings:
    """What one stack runs with; the same for its whole life between ``up`` and ``down``."""

    directory: str
    ports: dict[str, int]
    kafka_heap: str
    registry_heap: str
    elasticsearch_heap: str
    jit: str
    account: str
    java_home: str
    postgres_bin: str
    ready_timeout_s: float

    def port(self, key: str) -> int:
        """Return the port of one listener of ``PORTS``."""
        return self.ports[key]

    @property
    def home(self) -> Path:
        """The data folder of the stack."""
        return Path(self.directory)

    def as_json(self) -> dict[str, object]:
        """Return what ``up`` records, so that later commands find the same stack."""
        return asdict(self)


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read every setting.

    Raises:
        StackError: A value cannot be used; the text names the variable.
    """
    directory = environment.get("AUDIT_STACK_DIR") or str(REPOSITORY / ".stack")
    return Settings(
        directory=str(Path(directory).expanduser().resolve()),
        ports=_read_ports(environment),
        kafka_heap=_read_heap(environment, "AUDIT_STACK_KAFKA_HEAP", "512m"),
        registry_heap=_read_heap(environment, "AUDIT_STACK_REGISTRY_HEAP", "256m"),
        elasticsearch_heap=_read_heap(environment, "AUDIT_STACK_ELASTICSEARCH_HEAP", "512m"),
        jit=_read_jit(environment, "AUDIT_STACK_JIT", JIT_QUICK),
        account=environment.get("AUDIT_STACK_USER") or "nobody",
        java_home=environment.get("AUDIT_STACK_JAVA_HOME") or environment.get("JAVA_HOME") or "",
        postgres_bin=environment.get("AUDIT_STACK_POSTGRES_BIN") or "",
        ready_timeout_s=_read_seconds(environment, "AUDIT_STACK_READY_TIMEOUT_S", 180.0),
    )


def cache_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where fetched programs are kept: outside the tree, shared by all stacks."""
    chosen = environment.get("AUDIT_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().resolve()
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(base).expanduser() / "audit-trail").resolve()


def _read_ports(environment: Mapping[str, str]) -> dict[str, int]:
    base = environment.get(PORT_BASE_VARIABLE)
    ports: dict[str, int] = {}
    for place, setting in enumerate(PORTS):
        default = setting.default
        if base:
            default = _port(PORT_BASE_VARIABLE, base) + place
        chosen = environment.get(setting.variable)
        ports[setting.key] = _port(setting.variable, chosen) if chosen else default
    _refuse_equal_ports(ports)
    return ports


def _refuse_equal_ports(ports: dict[str, int]) -> None:
    seen: dict[int, PortSetting] = {}
    for setting in PORTS:
        port = ports[setting.key]
        if port in seen:
            other = seen[port]
            message = (
                f"port {port} is given to {other.title} and to {setting.title}: "
                f"set {other.variable} or {setting.variable}"
            )
            raise StackError(message)
        seen[port] = setting


def _port(variable: str, text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = 0
    if not 0 < port <= PORT_MAX - len(PORTS):
        message = f"{variable}={text} is no usable port number"
        raise StackError(message)
    return port


def _read_heap(environment: Mapping[str, str], variable: str, default: str) -> str:
    heap = (environment.get(variable) or default).lower()
    if not heap[:-1].isdigit() or heap[-1] not in "mg":
        message = f"{variable}={heap} is no heap size: write it like 512m or 2g"
        raise StackError(message)
    return heap


def _read_jit(environment: Mapping[str, str], variable: str, default: str) -> str:
    jit = (environment.get(variable) or default).lower()
    if jit not in (JIT_QUICK, JIT_FULL):
        message = f"{variable}={jit} is neither {JIT_QUICK} nor {JIT_FULL}"
        raise StackError(message)
    return jit


def _read_seconds(environment: Mapping[str, str], variable: str, default: float) -> float:
    text = environment.get(variable)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        message = f"{variable}={text} is no number of seconds above 0"
        raise StackError(message)
    return seconds
