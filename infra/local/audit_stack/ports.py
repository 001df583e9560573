"""Free ports: a taken one is named together with the setting that moves it."""

import socket
from collections.abc import Iterable

from audit_stack.errors import StackError
from audit_stack.settings import PORT_BASE_VARIABLE, PORTS, Settings

LOOPBACK = "127.0.0.1"


def refuse_taken_ports(settings: Settings, keys: Iterable[str]) -> None:
    """Check that each listener of ``keys`` can be bound.

    Raises:
        StackError: Names every taken port and the variables that change it.
    """
    wanted = set(keys)
    taken = [
        f"port {settings.port(setting.key)} ({setting.title}) is taken; set {setting.variable}"
        for setting in PORTS
        if setting.key in wanted and not _is_free(settings.port(setting.key))
    ]
    if taken:
        hint = f"(or move all ports at once with {PORT_BASE_VARIABLE})"
        raise StackError("\n".join([*taken, hint]))


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of a stack that has just stopped linger; the servers bind all the same.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
