"""What the servers of a stack are doing right now."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from audit_stack import processes
from audit_stack.assemble import attach
from audit_stack.errors import NotReady
from audit_stack.servers.all import SERVERS
from audit_stack.servers.base import Server
from audit_stack.settings import Settings
from audit_stack.stack import Stack, layout_of
from audit_stack.supervise import Supervisor

# What supervisord's states mean to a person.
WORDS = {
    "STOPPED": "stopped",
    "STOPPING": "stopping",
    "EXITED": "failed",
    "FATAL": "failed",
    "UNKNOWN": "failed",
    "BACKOFF": "restarting",
}
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class ServerStatus:
    """One server, as seen at one moment."""

    name: str
    state: str  # absent, starting, ready, paused, stopping, stopped, restarting, failed
    address: str
    pid: int
    memory_mib: int
    version: str


def stack_status(settings: Settings) -> list[ServerStatus]:
    """Look at every server of the stack; a stack that is down has servers all absent."""
    layout = layout_of(settings)
    supervisor = Supervisor(layout)
    if not supervisor.is_running():
        return [_absent(server, settings) for server in SERVERS.values()]
    stack = attach(settings)
    states = supervisor.states()

    def look(server: Server) -> ServerStatus:
        if server.name not in states:
            return _absent(server, stack.settings)
        state, pid = states[server.name]
        return ServerStatus(
            name=server.name,
            state=WORDS.get(state) or _state_of_running(stack, server, pid),
            address=_address(server, stack.settings),
            pid=pid,
            memory_mib=processes.memory_bytes(pid) // MEBIBYTE if pid else 0,
            version=server.version(stack),
        )

    with ThreadPoolExecutor(len(SERVERS)) as pool:
        return list(pool.map(look, SERVERS.values()))


def _state_of_running(stack: Stack, server: Server, pid: int) -> str:
    if processes.is_paused(pid):
        return "paused"
    try:
        server.probe(stack)
    except NotReady:
        return "starting"
    return "ready"


def _absent(server: Server, settings: Settings) -> ServerStatus:
    return ServerStatus(server.name, "absent", _address(server, settings), 0, 0, "")


def _address(server: Server, settings: Settings) -> str:
    return f"127.0.0.1:{settings.port(server.ports[0])}"
