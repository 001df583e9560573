"""The worker, kept running beside the servers that it uses (`make up`, and after `make demo`).

It runs as who started the stack, not as the servers' account: it reads the keys. `up` alone does
not start it: a fresh database has to be migrated first.
"""

import os
import sys

from audit_stack.servers.base import Server, nothing, probe_http
from audit_stack.settings import REPOSITORY
from audit_stack.stack import Stack
from audit_stack.supervise import Command

NAME = "worker"


def url(stack: Stack) -> str:
    """Return where the worker shows metrics and health."""
    return f"http://127.0.0.1:{stack.settings.port(NAME)}"


def _command(stack: Stack) -> Command:
    return Command(
        argv=[sys.executable, "-m", "pipeline.entrypoints.cli", "worker"],
        directory=stack.layout.home,
        environment={
            "AUDIT_ENV_FILE": str(stack.layout.env_file),
            "AUDIT_HTTP_PORT": str(stack.settings.port(NAME)),
            "PYTHONPATH": str(REPOSITORY),
            "PATH": os.environ.get("PATH", os.defpath),
        },
        as_invoker=True,
    )


def _probe(stack: Stack) -> None:
    probe_http(url(stack) + "/readyz")


SERVER = Server(
    name=NAME,
    title="worker",
    version=lambda _stack: REPOSITORY.name,
    ports=(NAME,),
    prepare=nothing,
    command=_command,
    probe=_probe,
    after=("kafka", "postgres", "registry", "elasticsearch", "s3"),
)
