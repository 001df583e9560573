"""The signer, kept running beside the worker: checkpoints of the logs, under Object Lock.

It gets settings of its own, with its own database role and the file of its own keys: none of the
ledger's other passwords. It needs the key provider's file to unwrap its seeds; its role shows it
nothing else that the provider could unwrap.
"""

import os
import subprocess
import sys

from audit_stack.credentials import (
    signer_env_file,
    signing_key_file,
    verifier_keys_file,
    write_private,
)
from audit_stack.envfile import application_settings
from audit_stack.errors import StackError
from audit_stack.servers.base import Server, probe_http
from audit_stack.settings import REPOSITORY
from audit_stack.stack import Stack
from audit_stack.supervise import Command

NAME = "signer"
PROGRAM = [sys.executable, "-m", "pipeline.entrypoints.cli"]
NEEDED = (
    "AUDIT_SIGNER_DATABASE_URL",
    "AUDIT_S3_ENDPOINT_URL",
    "AUDIT_S3_REGION",
    "AUDIT_S3_ACCESS_KEY_ID",
    "AUDIT_S3_SECRET_ACCESS_KEY",
    "AUDIT_S3_ARCHIVE_BUCKET",
    "AUDIT_KEY_FILE",
    "AUDIT_SIGNING_KEY_FILE",
    "AUDIT_LOG_ORIGIN",
)


def url(stack: Stack) -> str:
    """Return where the signer shows metrics and health."""
    return f"http://127.0.0.1:{stack.settings.port(NAME)}"


def _environment(stack: Stack) -> dict[str, str]:
    return {
        "AUDIT_ENV_FILE": str(signer_env_file(stack.layout)),
        "AUDIT_SIGNER_HTTP_PORT": str(stack.settings.port(NAME)),
        "PYTHONPATH": str(REPOSITORY),
        "PATH": os.environ.get("PATH", os.defpath),
    }


def _prepare(stack: Stack) -> None:
    """Write the signer's settings; make its first key, and the file of whoever verifies."""
    known = application_settings(stack)
    lines = [f"{name}={known[name]}\n" for name in NEEDED]
    write_private(signer_env_file(stack.layout), "".join(lines))
    if not signing_key_file(stack.layout).exists():
        _signing_key(stack, "create")
    listed = _signing_key(stack, "list", "--vkeys")
    write_private(verifier_keys_file(stack.layout), listed)


def _signing_key(stack: Stack, *words: str) -> str:
    done = subprocess.run(
        [*PROGRAM, "signing-key", *words],
        env=_environment(stack),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        message = f"signing-key {words[0]} failed:\n{done.stderr}"
        raise StackError(message)
    return done.stdout


def _command(stack: Stack) -> Command:
    return Command(
        argv=[*PROGRAM, "signer", "run"],
        directory=stack.layout.home,
        environment=_environment(stack),
        as_invoker=True,
    )


def _probe(stack: Stack) -> None:
    probe_http(url(stack) + "/readyz")


SERVER = Server(
    name=NAME,
    title="signer",
    version=lambda _stack: REPOSITORY.name,
    ports=(NAME,),
    prepare=_prepare,
    command=_command,
    probe=_probe,
    after=("postgres", "s3"),
)
