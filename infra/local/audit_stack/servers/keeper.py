"""The keeper, kept running beside the worker: holds, policies of redaction, retention, on a schedule.

As who started the stack, like the worker: it reads the keys. Its first round comes at once.
"""

import os
import sys

from audit_stack.servers.base import Server, nothing, probe_http
from audit_stack.settings import REPOSITORY
from audit_stack.stack import Stack
from audit_stack.supervise import Command

NAME = "keeper"


def _command(stack: Stack) -> Command:
    return Command(
        argv=[sys.executable, "-m", "pipeline.entrypoints.cli", "keeper", "run"],
        directory=stack.layout.home,
        environment={
            "AUDIT_ENV_FILE": str(stack.layout.env_file),
            "AUDIT_KEEPER_HTTP_PORT": str(stack.settings.port(NAME)),
            "PYTHONPATH": str(REPOSITORY),
            "PATH": os.environ.get("PATH", os.defpath),
        },
        as_invoker=True,
    )


def _probe(stack: Stack) -> None:
    probe_http(f"http://127.0.0.1:{stack.settings.port(NAME)}/healthz")


SERVER = Server(
    name=NAME,
    title="keeper",
    version=lambda _stack: REPOSITORY.name,
    ports=(NAME,),
    prepare=nothing,
    command=_command,
    probe=_probe,
    after=("kafka", "postgres", "registry", "elasticsearch", "s3"),
)
