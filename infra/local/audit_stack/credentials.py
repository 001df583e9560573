"""Passwords and keys of one stack.

Made once at random, kept in the data folder readable by the invoking user alone, and the
same again on every later ``up``.
"""

import json
import os
import secrets
from dataclasses import dataclass, fields
from pathlib import Path

from audit_stack.errors import StackError
from audit_stack.layout import Layout

KEY_BYTES = 32
PASSWORD_BYTES = 24


@dataclass(frozen=True)
class Credentials:
    """What the servers and the application identify themselves with."""

    postgres_admin: str
    postgres_writer: str
    postgres_reader: str
    postgres_redactor: str
    postgres_signer: str
    postgres_auditor: str
    postgres_registry: str
    s3_access_key_id: str
    s3_secret_access_key: str


def master_key_file(layout: Layout) -> Path:
    """Return the file of the key under which the application wraps its keys."""
    return layout.keys / "master.key"


def import_key_file(layout: Layout) -> Path:
    """Return the file of the key for imports."""
    return layout.keys / "import.key"


def signing_key_file(layout: Layout) -> Path:
    """Return the file of the wrapped keys that sign checkpoints; the signer makes it."""
    return layout.keys / "signing.json"


def verifier_keys_file(layout: Layout) -> Path:
    """Return the file of the keys that whoever verifies trusts."""
    return layout.keys / "verifier-keys.txt"


def signer_env_file(layout: Layout) -> Path:
    """Return the file of the signer's settings: no more than it needs."""
    return layout.keys / "signer.env"


def ensure_credentials(layout: Layout) -> Credentials:
    """Return the stack's credentials, making them on the first call."""
    for key_file in (master_key_file(layout), import_key_file(layout)):
        if not key_file.exists():
            write_private(key_file, secrets.token_hex(KEY_BYTES) + "\n")
    store = layout.keys / "credentials.json"
    held: dict[str, str] = {}
    if store.exists():
        held = json.loads(store.read_text(encoding="utf-8"))
    # A stack of an earlier release lacks the roles that came since.
    missing = {field.name for field in fields(Credentials)} - set(held)
    if missing:
        made = {name: _new_secret(name) for name in missing}
        write_private(store, json.dumps(held | made, indent=2) + "\n")
    return load_credentials(layout)


def load_credentials(layout: Layout) -> Credentials:
    """Read the credentials that ``up`` made.

    Raises:
        StackError: There are none.
    """
    store = layout.keys / "credentials.json"
    try:
        return Credentials(**json.loads(store.read_text(encoding="utf-8")))
    except FileNotFoundError:
        message = f"there is no stack in {layout.home}: run up first"
        raise StackError(message) from None


def _new_secret(name: str) -> str:
    if name == "s3_access_key_id":
        return "AUDIT" + secrets.token_hex(8).upper()
    # token_urlsafe needs no escaping in a URL, a shell or an ini file.
    return secrets.token_urlsafe(PASSWORD_BYTES)


def write_private(path: Path, text: str) -> None:
    """Write ``path`` with mode 0600, never visible half-written."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)
