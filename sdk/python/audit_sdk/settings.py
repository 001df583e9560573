"""What an ``Audit`` is made of; each may come from the environment."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from audit_sdk.contract import contract
from audit_sdk.errors import AuditConfigurationError
from audit_sdk.items import DeliveryClass
from audit_sdk.progress import SYSTEM

# What is grave enough to be kept over a crash is spooled where there is a spool.
DEFAULT_CLASSES: Final[Mapping[str, DeliveryClass]] = MappingProxyType(
    {
        "authentication": DeliveryClass.SPOOL,
        "data-access": DeliveryClass.SPOOL,
        "profile-update": DeliveryClass.SPOOL,
        "admin-action": DeliveryClass.SPOOL,
        "security-change": DeliveryClass.SPOOL,
        "system": DeliveryClass.BEST_EFFORT,  # a heartbeat is only worth something in its time
    }
)


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """``kafka`` holds librdkafka's own settings (TLS, SASL). Without ``spool_dir`` the families that
    would be spooled are ``best_effort``. Heartbeats are of ``heartbeat_tenant``, else of ``tenant``;
    with neither, or with ``heartbeat_s`` 0, there are none. Paths may be text.

    Raises:
        AuditConfigurationError: A setting does not fit; the message names it.
    """

    service: str
    bootstrap: str
    registry_url: str
    tenant: str | None = None
    version: str | None = None
    environment: str | None = None
    instance: str | None = None
    kafka: Mapping[str, Any] = field(default_factory=dict)
    registry_username: str = ""
    registry_password: str = field(default="", repr=False)
    registry_ca_file: Path | None = None
    delivery: Mapping[str, DeliveryClass | str] = field(default_factory=dict)
    spool_dir: Path | None = None
    spool_max_bytes: int = 256 * 1024 * 1024
    buffer_bytes: int = 32 * 1024 * 1024
    fail_closed_timeout_s: float = 5.0
    close_timeout_s: float = 5.0
    heartbeat_s: float = 60.0
    heartbeat_tenant: str | None = None
    request_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.service:
            raise AuditConfigurationError("service is empty: name the service (AUDIT_SERVICE)")
        for name in ("spool_dir", "registry_ca_file"):
            object.__setattr__(self, name, _path(name, getattr(self, name)))
        for name in ("spool_max_bytes", "buffer_bytes", "request_timeout_s"):
            _require_number(name, getattr(self, name), may_be_0=False)
        for name in ("fail_closed_timeout_s", "close_timeout_s", "heartbeat_s"):
            _require_number(name, getattr(self, name), may_be_0=True)
        unknown = set(self.delivery) - (contract().families.keys() - {SYSTEM})
        if unknown:
            raise AuditConfigurationError(
                f"delivery names no family of a service: {', '.join(sorted(unknown))}"
            )

    @classmethod
    def from_environment(cls, **given: Any) -> Self:
        """``AUDIT_SERVICE``, ``AUDIT_KAFKA_BOOTSTRAP``, ``AUDIT_REGISTRY_URL``, ``AUDIT_TENANT``,
        ``AUDIT_SERVICE_VERSION``, ``AUDIT_ENVIRONMENT``, ``AUDIT_SPOOL_DIR``; what is given here wins.
        """
        named = {
            "service": os.environ.get("AUDIT_SERVICE", ""),
            "bootstrap": os.environ.get("AUDIT_KAFKA_BOOTSTRAP", "127.0.0.1:19092"),
            "registry_url": os.environ.get(
                "AUDIT_REGISTRY_URL", "http://127.0.0.1:18080/apis/ccompat/v7"
            ),
            "tenant": os.environ.get("AUDIT_TENANT"),
            "version": os.environ.get("AUDIT_SERVICE_VERSION"),
            "environment": os.environ.get("AUDIT_ENVIRONMENT"),
            "spool_dir": Path(folder) if (folder := os.environ.get("AUDIT_SPOOL_DIR")) else None,
        }
        return cls(**(named | {name: value for name, value in given.items() if value is not None}))

    def class_of(self, family: str) -> DeliveryClass:
        """The delivery class of a family.

        Raises:
            AuditConfigurationError: There is no such class, or it needs a spool and there is none.
        """
        chosen = self.delivery.get(family)
        if chosen is None:
            default = DEFAULT_CLASSES[family]
            spools = self.spool_dir is not None or default is not DeliveryClass.SPOOL
            return default if spools else DeliveryClass.BEST_EFFORT
        try:
            named = DeliveryClass(chosen)
        except ValueError:
            known = ", ".join(DeliveryClass)
            raise AuditConfigurationError(f"delivery of {family}: one of {known}") from None
        if named is DeliveryClass.SPOOL and self.spool_dir is None:
            raise AuditConfigurationError(f"delivery of {family} is spool: set spool_dir")
        return named

    def named(self, **changes: Any) -> Self:
        """The same with other values."""
        return replace(self, **changes)


def _path(name: str, given: object) -> Path | None:
    if given is None or isinstance(given, Path):
        return given
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise AuditConfigurationError(f"{name} must be a path")
    return Path(given)


def _require_number(name: str, given: object, *, may_be_0: bool) -> None:
    if not isinstance(given, int | float) or not math.isfinite(given):
        raise AuditConfigurationError(f"{name} must be a number")
    if given < 0 or (given == 0 and not may_be_0):
        raise AuditConfigurationError(f"{name} must be {'0 or ' if may_be_0 else ''}more than 0")


def producer_settings(settings: Mapping[str, Any], *, queue_bytes: int) -> dict[str, Any]:
    """librdkafka's settings: the caller's own, under what the trail needs."""
    return {
        "linger.ms": 10,
        "compression.type": "zstd",
        "client.id": "audit-sdk",
        **settings,
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2",
        "message.timeout.ms": 0,  # an event is kept until the broker has it
        "queue.buffering.max.kbytes": max(queue_bytes // 1024, 64),
    }
