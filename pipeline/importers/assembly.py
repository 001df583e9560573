"""The parts of an event that every adapter fills alike: id, frame, parties, source, metadata."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final
from uuid import UUID, uuid5

from pipeline.domain.canonical import canonical_json
from pipeline.importers.events import ImportedEvent, Refusal, Unmappable
from pipeline.importers.vendor_record import CHANGES, ITEMS, VendorRecord, is_clean

# Fixed for ever: another namespace would import every record a second time.
NAMESPACE: Final = UUID("8737f1ba-109e-4d2d-8273-813439e7f543")
ID_CHARS: Final = 500

_HOST = re.compile(r"(?=.{1,253}$)(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,63}")
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def event_id(source: str, record: Mapping[str, Any]) -> str:
    """UUIDv5 of the source and the SHA-256 of the canonical record.

    Vendors' own ids are missing from, or repeat in, too many records to be the identity.

    Raises:
        Unmappable: The record holds text that is not Unicode, or a number that is not one.
    """
    try:
        canonical = canonical_json(dict(record))
    except (UnicodeEncodeError, ValueError):
        raise Unmappable(Refusal.NOT_UTF8, "the record has no canonical form") from None
    except RecursionError:
        raise Unmappable(Refusal.TOO_DEEP) from None
    return str(uuid5(NAMESPACE, f"{source}:{sha256(canonical).hexdigest()}"))


def tenant_name(text: str) -> str:
    """A tenant's name as it may stand in keys and paths.

    Raises:
        Unmappable: It has other signs than small letters, digits, dot, dash and underscore.
    """
    lowered = text.lower()
    if _TENANT.fullmatch(lowered) is None:
        raise Unmappable(Refusal.TENANT_UNUSABLE)
    return lowered


def actor(
    kind: str,
    *,
    tenant: str,
    id_type: str,
    id: str | None,  # noqa: A002 - the schema's name
    name: str | None = None,
    email: str | None = None,
) -> dict[str, Any]:
    """The record Actor; without an id the type of id is unknown."""
    return {
        "type": kind,
        "tenant": tenant,
        "id_type": id_type if id is not None else "unknown",
        "id": id,
        "name": name,
        "email": email,
        "roles": [],
    }


def target(
    kind: str,
    *,
    tenant: str,
    id_type: str,
    id: str,  # noqa: A002 - the schema's name
    name: str | None = None,
    email: str | None = None,
) -> dict[str, Any]:
    """The record Target, acted upon."""
    return {
        "relation": "target",
        "type": kind,
        "tenant": tenant,
        "id_type": id_type,
        "id": id,
        "name": name,
        "email": email,
    }


def resource(
    kind: str,
    *,
    tenant: str,
    id: str | None = None,  # noqa: A002 - the schema's name
    name: str | None = None,
    path: str | None = None,
) -> dict[str, Any]:
    """The record Resource."""
    return {"tenant": tenant, "type": kind, "id": id, "name": name, "path": path}


def change(path: str, old: str | None, new: str | None) -> dict[str, Any]:
    """The record Change."""
    return {"path": path, "old": old, "new": new}


def origin(
    record: VendorRecord, address: tuple[str | int, ...], user_agent: tuple[str | int, ...]
) -> dict[str, Any] | None:
    """The record Source, or None when nothing of it is known.

    What is neither an address nor a host name ("AWS Internal") stays in the rest.
    """
    found: dict[str, Any] = dict.fromkeys(("ip", "port", "domain", "user_agent", "device_id"))
    text = record.peek(*address)
    if isinstance(text, str):
        if _is_address(text):
            found["ip"] = record.text(*address)
        elif _HOST.fullmatch(text):
            found["domain"] = record.text(*address)
    found["user_agent"] = record.text(*user_agent)
    return found if any(value is not None for value in found.values()) else None


def email_in(*texts: str | None) -> str | None:
    """The first of the texts that is an e-mail address."""
    for text in texts:
        if text is not None and re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", text):
            return text
    return None


def required_id(value: Any) -> str | None:
    """An id as it is: never cut. None when there is none.

    Raises:
        Unmappable: It is longer than a field may be.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip() or not is_clean(value):
        return None
    if len(value) > ID_CHARS:
        raise Unmappable(Refusal.ID_TOO_LONG)
    return value.strip()


def assemble(
    source: str,
    family: str,
    record: VendorRecord,
    *,
    id: str,  # noqa: A002 - the schema's name
    occurred_at: int,
    tenant: str,
    producer: dict[str, Any],
    fields: dict[str, Any],
) -> ImportedEvent:
    """The whole event. ``fields`` holds what the adapter found; what the record still has becomes
    metadata, so this comes last. Arrays past the limits are cut at the end, and counted.
    """
    event: dict[str, Any] = {
        "event_id": id,
        "occurred_at": occurred_at,
        "tenant": tenant,
        "reason_code": None,
        "reason": None,
        "severity": "informational",
        "producer": {
            **dict.fromkeys(("version", "instance", "environment", "epoch", "sequence")),
            **producer,
        },
        "targets": [],
        "resources": [],
        "data_subjects": [],
        "source": None,
        "session": None,
        "request": None,
        "purpose": None,
        "ticket": None,
        "description": None,
        "retention_class": "standard",
        "hold": None,
        "imported": True,
        "labels": {},
        **fields,
    }
    for name, most in (("targets", ITEMS), ("resources", ITEMS), ("changes", CHANGES)):
        beyond = len(event.get(name, ())) - most
        if beyond > 0:
            event[name] = event[name][:most]
            record.dropped += beyond
    event["metadata"] = record.rest()
    return ImportedEvent(source, family, event)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
