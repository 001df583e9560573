"""What ``audit-trail doctor`` checks, server by server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.entrypoints.cli.checks import Check, Finding

if TYPE_CHECKING:
    from pipeline.settings import Settings

Examine = Callable[["Settings"], Sequence[Finding]]


def all_checks(settings: Settings) -> list[Check]:
    """Every check, each bound to the settings; nothing is asked yet."""
    from pipeline.entrypoints.cli import (
        doctor_access,
        doctor_database,
        doctor_kafka,
        doctor_keys,
        doctor_signer,
        doctor_stores,
    )

    examinations: list[tuple[str, Examine]] = [
        ("keys", doctor_keys.key_files),
        ("postgres", doctor_database.server),
        ("postgres schema", doctor_database.schema),
        ("postgres privileges", doctor_database.privileges),
        ("postgres months", doctor_database.months),
        ("tenants", doctor_keys.tenant_keys),
        ("kafka", doctor_kafka.brokers),
        ("kafka topics", doctor_kafka.topics),
        ("kafka permissions", doctor_access.kafka),
        ("kafka clock", doctor_kafka.clock),
        ("registry", doctor_stores.registry),
        ("elasticsearch", doctor_stores.search),
        ("index template", doctor_stores.template),
        ("elasticsearch privileges", doctor_access.search),
        ("s3 buckets", doctor_stores.buckets),
        ("s3 permissions", doctor_access.buckets),
        ("log origin", doctor_signer.origin),
        ("signing keys", doctor_signer.signing_keys),
        ("signer privileges", doctor_signer.role),
        ("checkpoints", doctor_signer.checkpoints),
    ]
    return [_bound(name, examine, settings) for name, examine in examinations]


def _bound(name: str, examine: Examine, settings: Settings) -> Check:
    return Check(name, lambda: examine(settings))
