"""Every setting, shown: meaning, default, whether it is set; and ``.env.example`` from the same.

The value of a secret is never shown, not even its default.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from pipeline.api.settings import RelaySettings
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class SettingEntry:
    """One setting. ``default`` is empty for a secret and for a path that is not set."""

    variable: str
    default: str
    is_secret: bool
    meaning: str


def setting_entries() -> list[SettingEntry]:
    """Every setting in the order of its class, the relay's last."""
    return [
        _entry(f"{one.model_config.get('env_prefix', '')}{name}".upper(), field)
        for one in (Settings, RelaySettings)
        for name, field in one.model_fields.items()
    ]


def set_variables() -> frozenset[str]:
    """The variables that the environment or the file of AUDIT_ENV_FILE sets."""
    from dotenv import dotenv_values

    env_file = os.environ.get("AUDIT_ENV_FILE")
    in_file = dotenv_values(env_file) if env_file and Path(env_file).is_file() else {}
    return frozenset(name.upper() for name in (*in_file, *os.environ))


def env_example() -> str:
    """The file ``.env.example``, whole: every variable, commented out, at its default."""
    lines = [
        "# Every setting, at its default. Written by `audit-trail settings --output env`.",
        "# Copy it, uncomment what differs, and name the copy in AUDIT_ENV_FILE.",
        "# Secrets belong here or in the environment, never on a command line; mode 0600.",
    ]
    for entry in setting_entries():
        lines += ["", f"# {entry.meaning}"]
        lines.append(f"#{entry.variable}={entry.default}")
    return "\n".join([*lines, ""])


def _entry(variable: str, field: FieldInfo) -> SettingEntry:
    default = field.default
    is_secret = isinstance(default, SecretStr)
    if default is None or is_secret:
        shown = ""
    elif isinstance(default, bool):
        shown = str(default).lower()
    else:
        shown = str(default)
    return SettingEntry(variable, shown, is_secret, field.description or "")
