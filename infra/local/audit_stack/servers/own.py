"""The trail's own processes, kept running beside the servers that they use (`make up`, after `make demo`).

They run as who started the stack, not as the servers' account: they read the keys. `up` alone does
not start them: a fresh database has to be migrated first.
"""

import os
import sys

from audit_stack.servers.base import Server, nothing, probe_http
from audit_stack.settings import REPOSITORY
from audit_stack.stack import Stack
from audit_stack.supervise import Command


def own_server(name: str, words: list[str], *, port_variable: str, page: str) -> Server:
    """Return a command of the application with the application's settings, which answers at a page."""

    def command(stack: Stack) -> Command:
        return Command(
            argv=[sys.executable, "-m", "pipeline.entrypoints.cli", *words],
            directory=stack.layout.home,
            environment={
                "AUDIT_ENV_FILE": str(stack.layout.env_file),
                port_variable: str(stack.settings.port(name)),
                "PYTHONPATH": str(REPOSITORY),
                "PATH": os.environ.get("PATH", os.defpath),
            },
            as_invoker=True,
        )

    def probe(stack: Stack) -> None:
        probe_http(f"http://127.0.0.1:{stack.settings.port(name)}/{page}")

    return Server(
        name=name,
        title=name,
        version=lambda _stack: REPOSITORY.name,
        ports=(name,),
        prepare=nothing,
        command=command,
        probe=probe,
        after=("kafka", "postgres", "registry", "elasticsearch", "s3"),
    )


WORKER = own_server("worker", ["worker"], port_variable="AUDIT_HTTP_PORT", page="readyz")
# Holds, policies of redaction, retention, on a schedule; its first round comes at once.
KEEPER = own_server(
    "keeper", ["keeper", "run"], port_variable="AUDIT_KEEPER_HTTP_PORT", page="healthz"
)
