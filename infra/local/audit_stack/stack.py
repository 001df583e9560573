"""One stack: everything that the servers' modules need to know."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from audit_stack.account import Account, server_account
from audit_stack.credentials import Credentials
from audit_stack.errors import StackError
from audit_stack.layout import Layout, plan_layout
from audit_stack.settings import Settings


@dataclass(frozen=True)
class Stack:
    """A stack whose programs are at hand and whose credentials exist."""

    settings: Settings
    layout: Layout
    account: Account
    credentials: Credentials
    programs: dict[str, Path]  # by name, reachable by the servers' account
    java_home: Path
    registry_java_home: Path  # the registry needs a newer Java than the others
    postgres_bin: Path

    @property
    def java(self) -> str:
        """The Java that runs Kafka."""
        return str(self.java_home / "bin" / "java")

    def folder(self, name: str) -> Path:
        """Return the folder of one server."""
        return self.layout.server(name)


def layout_of(settings: Settings) -> Layout:
    """Return the paths of the stack that ``settings`` name."""
    return plan_layout(settings.home, server_account(settings.account))


def recorded_settings(settings: Settings) -> Settings:
    """Return the settings with which the stack in the same folder was started.

    Raises:
        StackError: No stack was started there.
    """
    record = layout_of(settings).record
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = f"there is no stack in {settings.home}: run up first"
        raise StackError(message) from None
    # A stack of an earlier release knows fewer settings and listeners.
    known = {**asdict(settings), **recorded}
    return Settings(**{**known, "ports": {**settings.ports, **recorded["ports"]}})
