"""How far a verification is, kept in a file so that one that was interrupted goes on.

The file names logs, leaves and findings, and holds no value of an event. It is believed: it belongs to
whoever verifies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pipeline.compliance.findings import Findings, Store
from pipeline.compliance.trail_reader import LogState
from pipeline.compliance.verify_hours import Hours
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import Frontier

VERSION: Final = 2


@dataclass(slots=True)
class LogProgress:
    """One log: as it was at the start, and what was verified of it. A frontier is None once it can no
    longer be computed; ``hours``: by store, counted while the log is verified.
    """

    state: LogState
    next_leaf: int = 0
    leaves: Frontier | None = field(default_factory=Frontier)
    archive: Frontier | None = field(default_factory=Frontier)
    signed_size: int = 0
    checkpoints: int = 0
    done: bool = False
    hours: dict[Store, Hours] = field(default_factory=dict)
    differing: list[dict[str, Any]] = field(default_factory=list)  # hours that differ, once done


@dataclass(slots=True)
class Progress:
    """A whole verification. ``scope`` says of what: a file of another scope is refused."""

    scope: dict[str, Any]
    logs: list[LogProgress]
    findings: Findings
    stubs: int = 0


def save(path: Path, progress: Progress) -> None:
    """Write the state in place of the one that is there, whole or not at all."""
    state = {
        "version": VERSION,
        "scope": progress.scope,
        "logs": [_log(log) for log in progress.logs],
        "findings": progress.findings.to_state(),
        "stubs": progress.stubs,
    }
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(state), encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None


def load(path: Path, scope: Mapping[str, Any]) -> Progress | None:
    """The state of a verification that was begun with the same scope; None: there is none yet.

    Raises:
        ConfigurationError: Another scope's, or no such file.
    """
    if not path.exists():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        version, progress = state["version"], _read(state)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is no state of a verification") from error
    if version != VERSION:
        raise ConfigurationError(f"{path} is of another release: begin anew")
    if progress.scope != dict(scope):
        raise ConfigurationError(
            f"{path} is of a verification with other options; give the same, or another file"
        )
    return progress


def _read(state: Mapping[str, Any]) -> Progress:
    return Progress(
        state["scope"],
        [_read_log(log) for log in state["logs"]],
        Findings.from_state(state["findings"]),
        state["stubs"],
    )


def _log(log: LogProgress) -> dict[str, Any]:
    state = log.state
    return {
        "log_id": state.log_id,
        "name": str(state.name),
        "size": state.size,
        "next_offset": state.next_offset,
        "frontier": state.frontier.hex(),
        "root": state.root.hex(),
        "updated_at": state.updated_at.isoformat(),
        "topic_id": state.topic_id,
        "indexed": state.indexed,
        "archived": state.archived,
        "next_leaf": log.next_leaf,
        "leaves": _frontier(log.leaves),
        "archive": _frontier(log.archive),
        "signed_size": log.signed_size,
        "checkpoints": log.checkpoints,
        "done": log.done,
        "hours": {store.value: sorted(hours.items()) for store, hours in log.hours.items()},
        "differing": log.differing,
    }


def _read_log(kept: Mapping[str, Any]) -> LogProgress:
    state = LogState(
        kept["log_id"],
        LogName.parse(kept["name"]),
        kept["size"],
        kept["next_offset"],
        bytes.fromhex(kept["frontier"]),
        bytes.fromhex(kept["root"]),
        datetime.fromisoformat(kept["updated_at"]),
        kept["topic_id"],
        kept["indexed"],
        kept["archived"],
    )
    return LogProgress(
        state,
        kept["next_leaf"],
        _read_frontier(kept["leaves"]),
        _read_frontier(kept["archive"]),
        kept["signed_size"],
        kept["checkpoints"],
        kept["done"],
        {Store(store): dict(map(tuple, hours)) for store, hours in kept["hours"].items()},
        kept["differing"],
    )


def _frontier(frontier: Frontier | None) -> list[Any] | None:
    return None if frontier is None else [frontier.size, frontier.to_bytes().hex()]


def _read_frontier(kept: list[Any] | None) -> Frontier | None:
    return None if kept is None else Frontier.from_bytes(kept[0], bytes.fromhex(kept[1]))
