"""Running checks side by side: each has its own time, and one that fails hides no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread
from time import monotonic
from typing import Literal

from pipeline.domain.errors import AuditTrailError, Unavailable
from pipeline.entrypoints.cli.failures import ADVICE
from pipeline.entrypoints.cli.output import Row

Status = Literal["ok", "warn", "fail"]
# A check that asks several things in a row may take this many timeouts.
_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says. ``what_to_do`` is a sentence or a command, empty if all is well."""

    check: str
    status: Status
    detail: str
    what_to_do: str = ""

    def row(self) -> Row:
        """For output."""
        return {
            "check": self.check,
            "status": self.status,
            "detail": self.detail,
            "what_to_do": self.what_to_do,
        }


@dataclass(frozen=True, slots=True)
class Check:
    """``run`` may block; it returns findings, or raises one of our errors."""

    name: str
    run: Callable[[], Sequence[Finding]]


def run_checks(checks: Sequence[Check], *, timeout_s: float) -> list[Finding]:
    """All findings, in the order of the checks."""
    findings: dict[str, Sequence[Finding]] = {}

    def run(check: Check) -> None:
        findings[check.name] = _findings(check)

    # Daemons: a check that hangs must not keep the process.
    threads = [Thread(target=run, args=(check,), daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    until = monotonic() + timeout_s * _PATIENCE
    for thread in threads:
        thread.join(max(0.0, until - monotonic()))
    late = Finding("", "fail", f"no answer within {timeout_s * _PATIENCE:g} s", "is it up?")
    return [
        finding
        for check in checks
        for finding in findings.get(check.name, [_renamed(late, check.name)])
    ]


def _findings(check: Check) -> Sequence[Finding]:
    from pipeline.logging import name_error

    try:
        return check.run()
    except Unavailable as error:
        return [Finding(check.name, "fail", str(error), ADVICE.get(error.what, "is it up?"))]
    except AuditTrailError as error:
        problem, _, advice = str(error).partition("; run: ")
        return [Finding(check.name, "fail", problem, f"run: {advice}" if advice else "")]
    except Exception as error:  # noqa: BLE001 - a check that breaks is itself a finding
        return [Finding(check.name, "fail", f"unexpected {name_error(error)}", "report this bug")]


def _renamed(finding: Finding, name: str) -> Finding:
    return Finding(name, finding.status, finding.detail, finding.what_to_do)
