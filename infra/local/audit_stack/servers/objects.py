"""The S3 gateway: versitygw over a folder, with versions kept beside it.

Its one account is the root account of the stack; the application creates the buckets.
"""

from audit_stack.catalogue import S3_GATEWAY
from audit_stack.gateway_build import BINARY
from audit_stack.servers.base import Server, probe_http
from audit_stack.stack import Stack
from audit_stack.supervise import Command

NAME = "s3"
REGION = "us-east-1"
HEALTH = "/health"


def url(stack: Stack) -> str:
    """Return the address for S3 clients; buckets are addressed by path."""
    return f"http://127.0.0.1:{stack.settings.port('s3')}"


def _prepare(stack: Stack) -> None:
    folder = stack.account.make_folder(stack.folder(NAME))
    for name in ("iam", "versions", "objects"):
        stack.account.make_folder(folder / name)


def _command(stack: Stack) -> Command:
    folder = stack.folder(NAME)
    return Command(
        argv=[
            str(stack.programs[NAME] / BINARY),
            "--port",
            f"127.0.0.1:{stack.settings.port('s3')}",
            "--region",
            REGION,
            "--iam-dir",
            str(folder / "iam"),
            "--health",
            HEALTH,
            "--quiet",
            "posix",
            "--versioning-dir",
            str(folder / "versions"),
            str(folder / "objects"),
        ],
        directory=folder,
        # By the environment and not as arguments, which every local user can list.
        environment={
            "ROOT_ACCESS_KEY": stack.credentials.s3_access_key_id,
            "ROOT_SECRET_KEY": stack.credentials.s3_secret_access_key,
        },
    )


def _probe(stack: Stack) -> None:
    probe_http(url(stack) + HEALTH)


SERVER = Server(
    name=NAME,
    title="S3 gateway",
    version=lambda _stack: S3_GATEWAY.version,
    ports=("s3",),
    prepare=_prepare,
    command=_command,
    probe=_probe,
)
