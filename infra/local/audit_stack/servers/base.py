"""What every server of the stack is made of.

``prepare`` may run on every start, ``provision`` on every start that became ready:
both change nothing the second time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import httpx

from audit_stack.catalogue import maven_programs
from audit_stack.errors import NotReady
from audit_stack.settings import JIT_QUICK
from audit_stack.stack import Stack
from audit_stack.supervise import Command

PROBE_TIMEOUT_S = 2.0
# The serial collector suits heaps below 1 GB on few cores; without performance data the JVM
# leaves nothing in the machine's temporary folder.
_JVM_OPTIONS = ("-XX:+UseSerialGC", "-XX:-UsePerfData")
_QUICK = "-XX:TieredStopAtLevel=1"
TOOL_OPTIONS = ("-Xmx128m", *_JVM_OPTIONS, _QUICK)  # of a Java program that runs for a second


def jvm_options(stack: Stack) -> tuple[str, ...]:
    """Options of every server's JVM but its heap."""
    return (*_JVM_OPTIONS, _QUICK) if stack.settings.jit == JIT_QUICK else _JVM_OPTIONS


def nothing(_stack: Stack) -> None:
    """Do nothing: for servers that need no provisioning."""


@dataclass(frozen=True)
class Server:
    """A server's name, listeners and life cycle."""

    name: str
    title: str
    version: Callable[[Stack], str]
    ports: tuple[str, ...]  # keys of settings.PORTS; the first is the one clients use
    prepare: Callable[[Stack], None]  # files, before the start
    command: Callable[[Stack], Command]
    probe: Callable[[Stack], None]  # raises NotReady until clients can work
    provision: Callable[[Stack], None] = nothing  # roles, databases, once ready
    after: tuple[str, ...] = ()  # servers that must be ready before the start


def maven_version(name: str) -> Callable[[Stack], str]:
    """Return the reader of a program's version in the lock file."""
    return lambda _stack: maven_programs()[name].version


def probe_http(url: str) -> None:
    """Ask ``url`` once.

    Raises:
        NotReady: No answer, or another one than 200.
    """
    try:
        # trust_env would send loopback requests to a proxy named in the environment.
        with httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
            response = client.get(url)
    except httpx.HTTPError as error:
        raise NotReady(type(error).__name__) from error
    if response.status_code != httpx.codes.OK:
        message = f"{url} answers {response.status_code}"
        raise NotReady(message)
