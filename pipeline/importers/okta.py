"""Okta System Log events as events.

Source: Okta developer documentation, "System Log API" and "Event types".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pipeline.importers.assembly import (
    actor,
    assemble,
    email_in,
    event_id,
    origin,
    required_id,
    resource,
    target,
    tenant_name,
)
from pipeline.importers.events import ImportedEvent, Refusal, Unmappable
from pipeline.importers.times import to_micros
from pipeline.importers.vendor_record import VendorRecord

SOURCE: Final = "okta"

# The first pattern that matches the event type decides: (pattern, family, activity).
_FAMILIES: Final = tuple(
    (re.compile(pattern), family, activity)
    for pattern, family, activity in (
        (r"user\.session\.impersonation\..*", "security-change", "privilege"),
        (r"user\.session\.(end|clear)|logout", "authentication", "logoff"),
        (r"user\.session\.(start|access_admin_app)", "authentication", "logon"),
        (r"user\.session\..*", "authentication", "other"),
        (r"user\.authentication\.auth_via_mfa", "authentication", "preauth"),
        (r"user\.authentication\..*", "authentication", "logon"),
        (r"policy\.evaluate_sign_on", "authentication", "preauth"),
        (r"user\.account\.(lock|unlock).*", "authentication", "other"),
        (r"user\.account\.report_suspicious_activity.*", "authentication", "other"),
        (r"app\.oauth2\..*token\.grant.*", "authentication", "renew"),
        (r"app\.(.*\.)?(detect_reuse|reuse|unauth_app_access_attempt)", "authentication", "other"),
        (r"application\.user_membership\.show_password", "data-access", "decrypt"),
        (r".*\.(export|download)(\..*)?", "data-access", "export"),
        (r"system\.mfa\.factor\..*|user\.mfa\.okta_verify\..*", "security-change", "mfa"),
        (r".*\.privilege\..*|iam\..*", "security-change", "privilege"),
        (r"system\.api_token\..*|.*credential.*|app\.keys\..*", "security-change", "credential"),
        (r"zone\..*|network_zone\..*", "security-change", "network"),
        (r"system\.log_stream\..*|event_hook\..*", "security-change", "logging"),
        (r"policy\..*|security\..*|system\.idp\..*", "security-change", "policy"),
        (r"user\.mfa\..*", "profile-update", None),
        (r"user\.account\..*", "profile-update", None),
        (r"user\.lifecycle\.create.*", "admin-action", "create"),
        (r".*\.(create|add)(\..*)?", "admin-action", "create"),
        (r".*\.(delete|remove)(\..*)?", "admin-action", "delete"),
        (r".*\.(activate|reactivate|unsuspend)(\..*)?", "admin-action", "enable"),
        (r".*\.(deactivate|suspend)(\..*)?", "admin-action", "disable"),
        (r".*\.(update|change|assign|unassign)(\..*)?", "admin-action", "update"),
        (
            r"(application|group|user|system|device|app|workflow|resource)\..*",
            "admin-action",
            "other",
        ),
    )
)

_OUTCOMES: Final = {
    "SUCCESS": "success",
    "ALLOW": "success",
    "FAILURE": "failure",
    "DENY": "failure",
    "ABANDONED": "failure",
}
_SEVERITIES: Final = {"WARN": "medium", "ERROR": "high", "HIGH": "high", "CRITICAL": "critical"}
_PEOPLE: Final = {"User": "okta_user_id", "AppUser": "okta_app_user_id"}
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,63}")


def map_record(record: Mapping[str, Any], *, tenant: str | None = None) -> ImportedEvent:
    """One record as an event. The log does not name its organisation: without ``tenant`` it is
    ``okta``.

    Raises:
        Unmappable: The record has no usable time, or a type that is in no table here.
    """
    vendor = VendorRecord(record)
    occurred_at = _time(vendor)
    event_type = vendor.token("eventType")
    if event_type is None:
        raise Unmappable(Refusal.NO_ACTION)
    family, activity = _family(event_type.lower())
    home = tenant_name(tenant) if tenant is not None else "okta"
    people, things = _targets(vendor, home)
    fields: dict[str, Any] = {
        "action": event_type.lower(),
        "labels": _labels(vendor, event_type),
        "actor": _actor(vendor, home),
        "targets": people,
        "resources": things,
        "source": _source(vendor),
        "session": _session(vendor),
        "request": _request(vendor),
        "description": vendor.text("displayMessage"),
        "severity": _SEVERITIES.get(str(vendor.take("severity")), "informational"),
    }
    fields |= _outcome(vendor, family)
    fields |= _family_fields(vendor, family, activity, fields)
    return assemble(
        SOURCE,
        family,
        vendor,
        id=event_id(SOURCE, record),
        occurred_at=occurred_at,
        tenant=home,
        producer={"service": "okta-systemlog", "version": vendor.token("version")},
        fields=fields,
    )


def _family(event_type: str) -> tuple[str, str | None]:
    for pattern, family, activity in _FAMILIES:
        if pattern.fullmatch(event_type):
            return family, activity
    raise Unmappable(Refusal.ACTION_UNKNOWN)


def _time(vendor: VendorRecord) -> int:
    """``published``; else the time that a collector read from the record when it came in."""
    for key in ("published", "p_event_time"):
        occurred_at = to_micros(vendor.peek(key))
        if occurred_at is not None:
            vendor.take(key)
            return occurred_at
    raise Unmappable(Refusal.NO_TIME)


def _labels(vendor: VendorRecord, event_type: str) -> dict[str, str]:
    found = {
        "okta_event_type": event_type,
        "okta_legacy_event_type": vendor.token("legacyEventType"),
        "okta_uuid": vendor.token("uuid"),
    }
    return {key: text for key, text in found.items() if text is not None}


def _actor(vendor: VendorRecord, home: str) -> dict[str, Any]:
    """An id that Okta does not know ("unknown") leaves the typed name, which is nobody's."""
    number = required_id(vendor.text("actor", "id"))
    login = vendor.text("actor", "alternateId")
    name = vendor.text("actor", "displayName")
    kind = vendor.token("actor", "type")
    is_person = kind is None or kind in _PEOPLE
    if number is not None:
        id_type = _PEOPLE.get(kind or "User", "okta_id")
        return actor(
            "user" if is_person else "service",
            tenant=home,
            id_type=id_type,
            id=number,
            name=name or login,
            email=email_in(login),
        )
    return actor(
        "user" if login or name else "anonymous",
        tenant=home,
        id_type="unknown",
        id=login,
        name=name,
        email=email_in(login),
    )


def _targets(vendor: VendorRecord, home: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Persons, and things, of the array ``target``; one person once."""
    people: dict[tuple[str, str], dict[str, Any]] = {}
    things = []
    for index in range(vendor.size("target")):
        kind = vendor.text("target", index, "type") or "unknown"
        number = required_id(vendor.text("target", index, "id"))
        login = vendor.text("target", index, "alternateId")
        name = vendor.text("target", index, "displayName")
        if kind in _PEOPLE and (number or login):
            party = target(
                "user",
                tenant=home,
                id_type=_PEOPLE[kind] if number else "unknown",
                id=number or login or "",
                name=name or login,
                email=email_in(login),
            )
            people.setdefault((party["id_type"], party["id"]), party)
            continue
        # An id with a slash is a path, which may name people; those are not stored in clear.
        is_opaque = number is not None and number.isascii() and number.isalnum()
        things.append(
            resource(
                re.sub(r"[^a-z0-9]+", "_", kind.lower()).strip("_") or "unknown",
                tenant=home,
                id=number if is_opaque else None,
                name=name or login,
                path=None if is_opaque else number,
            )
        )
    return list(people.values()), things


def _source(vendor: VendorRecord) -> dict[str, Any] | None:
    found = origin(vendor, ("client", "ipAddress"), ("client", "userAgent", "rawUserAgent"))
    device = vendor.text("device", "id") or vendor.text(
        "debugContext", "debugData", "deviceFingerprint"
    )
    if device is None:
        return found
    empty = dict.fromkeys(("ip", "port", "domain", "user_agent"))
    return {**(found or empty), "device_id": device}


def _session(vendor: VendorRecord) -> dict[str, Any] | None:
    number = vendor.text("authenticationContext", "externalSessionId")
    return {"id": number, "mfa": None, "issuer": None} if number is not None else None


def _request(vendor: VendorRecord) -> dict[str, Any] | None:
    number = vendor.token("debugContext", "debugData", "requestId") or vendor.token(
        "transaction", "id"
    )
    return {"id": number, "trace_id": None, "span_id": None} if number is not None else None


def _outcome(vendor: VendorRecord, family: str) -> dict[str, Any]:
    outcome = _OUTCOMES.get(str(vendor.take("outcome", "result")), "unknown")
    reason = vendor.text("outcome", "reason")
    code = reason if reason is not None and _CODE.fullmatch(reason) else None
    found: dict[str, Any] = {
        "outcome": outcome,
        "reason_code": code,
        "reason": reason if code is None else None,
    }
    if family == "authentication":
        found["failure_code"] = code if outcome == "failure" else None
    return found


def _family_fields(
    vendor: VendorRecord, family: str, activity: str | None, fields: Mapping[str, Any]
) -> dict[str, Any]:
    if family == "authentication":
        factor = vendor.token("debugContext", "debugData", "factor") or vendor.token(
            "authenticationContext", "credentialType"
        )
        return {
            "operation": activity,
            "auth_protocol": vendor.token("authenticationContext", "authenticationProvider"),
            "logon_type": "interactive",
            "auth_factors": [factor.lower()] if factor is not None else [],
            "is_new_logon": True if fields["action"] == "user.session.start" else None,
            "is_remote": True if fields["source"] else None,
        }
    if family == "data-access":
        return {
            "operation": activity,
            "data_classes": ["credential"] if activity == "decrypt" else [],
            "record_count": None,
            "byte_count": None,
            "export_destination": None,
        }
    if family == "security-change":
        return {
            "change_kind": activity,
            "privileges_added": _privileges(vendor),
            "privileges_removed": [],
            "key_fingerprint": None,
            "break_glass": fields["action"].startswith("user.session.impersonation."),
            "changes": [],
        }
    if family == "admin-action":
        return {"operation": activity, "changes": []}
    actor_id = fields["actor"]["id"]
    return {
        "self_service": all(party["id"] == actor_id for party in fields["targets"]),
        "changes": [],
    }


def _privileges(vendor: VendorRecord) -> list[str]:
    """The names of granted roles, from one text with commas; they are Okta's own."""
    granted = vendor.text("debugContext", "debugData", "privilegeGranted")
    return [name.strip() for name in granted.split(",") if name.strip()] if granted else []
