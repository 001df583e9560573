"""Audit events from Python services, held to their contract before anything is sent."""

from audit_sdk.codec import encode, validate
from audit_sdk.contract import Contract, Family, Limits, contract
from audit_sdk.errors import AuditError, InvalidEvent, Problem
from audit_sdk.wire import frame, murmur2, raw_key

__all__ = [
    "AuditError",
    "Contract",
    "Family",
    "InvalidEvent",
    "Limits",
    "Problem",
    "contract",
    "encode",
    "frame",
    "murmur2",
    "raw_key",
    "validate",
]
