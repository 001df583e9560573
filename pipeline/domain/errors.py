"""Failures, told apart by what the caller must do.

Nothing outside this module invents another kind: a driver's exception never leaves a sink.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Reason(StrEnum):
    """Why a record went to the dead letter: a closed set, used as a metric label and a header."""

    EMPTY_VALUE = "empty_value"
    NULL_VALUE = "null_value"
    WRONG_MAGIC = "wrong_magic"
    UNKNOWN_SCHEMA = "unknown_schema"
    SCHEMA_OF_OTHER_SUBJECT = "schema_of_other_subject"
    SCHEMA_UNUSABLE = "schema_unusable"
    TOO_LARGE = "too_large"
    TRUNCATED = "truncated"
    TRAILING_BYTES = "trailing_bytes"
    MALFORMED = "malformed"
    INVALID_UTF8 = "invalid_utf8"
    CONTROL_CHARACTER = "control_character"
    NOT_A_NUMBER = "not_a_number"
    LIMIT_EXCEEDED = "limit_exceeded"
    EVENT_ID_INVALID = "event_id_invalid"
    TENANT_UNKNOWN = "tenant_unknown"
    IN_FUTURE = "in_future"
    EXPIRED = "expired"
    IMPORT_NOT_AUTHORISED = "import_not_authorised"
    ID_REUSED = "id_reused"


class AuditTrailError(Exception):
    """Root of every failure that this project raises on purpose."""


class InvalidRecord(AuditTrailError):
    """This record can never be accepted: send it to the dead letter and go on.

    ``detail`` names the path and the rule, never a value of the event.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class Unavailable(AuditTrailError):
    """A server does not answer: nothing is known about the call; make the same call again later.

    ``what`` names the part (``postgres``, ``elasticsearch``, ``s3``, ``registry``, ``kafka``, ``kms``).
    """

    def __init__(self, what: str, detail: str = "") -> None:
        super().__init__(f"{what} unavailable: {detail}" if detail else f"{what} unavailable")
        self.what = what


class ChainBroken(AuditTrailError):
    """Stores contradict each other: stop this log and call a person. Never retried.

    The message says which log, what contradicts what, and the command that a person runs next.
    """

    def __init__(self, log: str, detail: str) -> None:
        super().__init__(f"log {log}: {detail}")
        self.log = log


class LetterTooLarge(ChainBroken):
    """A bad record that no dead letter can hold: what is before ``offset`` goes on, then its log stops."""

    def __init__(self, log: str, detail: str, *, offset: int) -> None:
        super().__init__(log, detail)
        self.offset = offset


class Held(AuditTrailError):
    """Under a legal hold: leave it as it is, say so, and try again once the hold is released."""

    def __init__(self, what: str, holds: Iterable[object]) -> None:
        self.holds = tuple(sorted({str(hold) for hold in holds}))
        super().__init__(f"{what}: under legal hold {', '.join(self.holds)}")


class OutOfPosition(AuditTrailError):
    """A batch begins after the ledger's position: drop it and read again from ``next_offset``."""

    def __init__(self, log: str, *, next_offset: int, batch_start: int) -> None:
        super().__init__(f"log {log}: batch starts at {batch_start}, ledger is at {next_offset}")
        self.log = log
        self.next_offset = next_offset


class ConfigurationError(AuditTrailError):
    """A setting or a missing part that a person must mend: exit before consuming anything."""
