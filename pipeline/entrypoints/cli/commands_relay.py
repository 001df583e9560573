"""Commands of the relay: serve, token."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Annotated, Final

import typer

relay_app = typer.Typer(no_args_is_help=True, help="Events of browsers, by HTTP.")

_NEEDS: Final = {"fastapi": "fastapi", "uvicorn": "uvicorn", "jwt": "pyjwt", "limits": "limits"}


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    relay_app.command()(serve)
    relay_app.command()(token)
    app.add_typer(relay_app, name="relay")


def serve() -> None:
    """Take events of browsers until stopped: SIGTERM or Ctrl-C end it in order.

    Settings are AUDIT_RELAY_*; `audit-trail settings` lists them.
    """
    _require_extra()
    from pipeline.api.settings import load_relay_settings
    from pipeline.entrypoints.relay import run_relay
    from pipeline.settings import load_settings

    run_relay(load_settings(), load_relay_settings())


def token(
    *,
    tenant: Annotated[str, typer.Option("--tenant", help="Tenant of the actor.")],
    actor: Annotated[str, typer.Option("--actor", help="Id of the actor.")],
    ttl: Annotated[int, typer.Option("--ttl", min=1, help="Seconds that it lives.")] = 300,
) -> None:
    """Mint a relay token, for trying the relay out; in production a backend mints them."""
    _require_extra()
    from pipeline.api.settings import load_relay_settings
    from pipeline.domain.errors import ConfigurationError
    from pipeline.entrypoints.relay import make_relay_tokens

    tokens = make_relay_tokens(load_relay_settings())
    try:
        minted = tokens.mint(tenant, actor, ttl)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    sys.stdout.write(minted + "\n")


def _require_extra() -> None:
    from pipeline.domain.errors import ConfigurationError

    missing = [name for module, name in _NEEDS.items() if find_spec(module) is None]
    if find_spec("audit_sdk") is None:
        missing.append("audit-sdk (sdk/python)")
    if missing:
        raise ConfigurationError(
            f"the relay needs {', '.join(missing)}: install audit-trail-pipeline with the extra `api`"
        )
