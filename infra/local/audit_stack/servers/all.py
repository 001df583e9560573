"""The servers of the stack, in the order in which they are listed."""

from audit_stack.errors import StackError
from audit_stack.servers import broker, database, objects, own, registry, search, signer
from audit_stack.servers.base import Server

SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        broker.SERVER,
        registry.SERVER,
        database.SERVER,
        search.SERVER,
        objects.SERVER,
        own.WORKER,
        signer.SERVER,
        own.KEEPER,
    )
}
# What `up` starts when nothing is named: the trail's own need a migrated database first.
BY_DEFAULT = frozenset(SERVERS) - {own.WORKER.name, signer.NAME, own.KEEPER.name}


def choose(names: list[str]) -> set[str]:
    """Return the servers ``names`` (all but the trail's own when empty) with those that they need.

    Raises:
        StackError: A name is none of a server.
    """
    chosen = set(names or BY_DEFAULT)
    for name in list(chosen):
        chosen.update(find(name).after)
    return chosen


def find(name: str) -> Server:
    """Return the server ``name``.

    Raises:
        StackError: There is none.
    """
    if name not in SERVERS:
        message = f"there is no server {name}: choose from {', '.join(SERVERS)}"
        raise StackError(message)
    return SERVERS[name]
