"""Audit events from Python services, held to their contract before anything is sent."""

from audit_sdk.client import Audit
from audit_sdk.codec import encode, validate
from audit_sdk.context import audit_context, set_context
from audit_sdk.contract import Contract, Family, Limits, contract
from audit_sdk.errors import (
    AuditConfigurationError,
    AuditError,
    InvalidEvent,
    NotAccepted,
    NotDelivered,
    Problem,
)
from audit_sdk.items import DeliveryClass, Metrics
from audit_sdk.progress import Dropped
from audit_sdk.receipt import Receipt
from audit_sdk.settings import AuditSettings
from audit_sdk.wire import frame, murmur2, raw_key

__all__ = [
    "Audit",
    "AuditConfigurationError",
    "AuditError",
    "AuditSettings",
    "Contract",
    "DeliveryClass",
    "Dropped",
    "Family",
    "InvalidEvent",
    "Limits",
    "Metrics",
    "NotAccepted",
    "NotDelivered",
    "Problem",
    "Receipt",
    "audit_context",
    "contract",
    "encode",
    "frame",
    "murmur2",
    "raw_key",
    "set_context",
    "validate",
]
