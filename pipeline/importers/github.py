"""GitHub audit log events (organisation and enterprise) as events.

Source: GitHub documentation, "Audit log events for your organization" and "… enterprise".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pipeline.importers.assembly import (
    actor,
    assemble,
    change,
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

SOURCE: Final = "github"

# The first pattern that matches the action decides: (pattern, family, activity).
_FAMILIES: Final = tuple(
    (re.compile(pattern), family, activity)
    for pattern, family, activity in (
        (r"git\.(clone|fetch)", "data-access", "download"),
        (r"git\.push", "data-access", "other"),
        (r"repo\.download_zip|.*\.(export|download).*", "data-access", "export"),
        (
            r"(user|org_credential_authorization)\.(login|failed_login|sso_response).*",
            "authentication",
            "logon",
        ),
        (
            r"org\.update_member|user\.(update|rename|change|.*email).*|profile.*",
            "profile-update",
            None,
        ),
        (r".*two_factor.*", "security-change", "mfa"),
        (r".*saml.*|.*oidc.*|.*oauth_application.*", "security-change", "policy"),
        (
            (
                r"(secret_scanning|repository_secret_scanning|dependabot|code_scanning|repository_code_scan"
                r"|business_advanced_security|advanced_security|repository_vulnerability_alert).*"
            ),
            "security-change",
            "policy",
        ),
        (
            r"(protected_branch|repository_ruleset|repository_branch_protection).*",
            "security-change",
            "policy",
        ),
        (r"ip_allow_list.*", "security-change", "network"),
        (
            (
                r"(public_key|deploy_key|personal_access_token|oauth_access|oauth_authorization"
                r"|org_credential_authorization|integration_installation).*"
            ),
            "security-change",
            "credential",
        ),
        (r"(org|enterprise|business)\.(config\.|set_|audit_log_).*", "security-change", "policy"),
        (r"audit_log_streaming.*", "security-change", "logging"),
        (r"repo\.(add|remove|update)_member|repo\.access", "security-change", "privilege"),
        (
            r"team\.(promote|demote)_.*|organization_moderators\..*|.*\.admin_role|role\..*",
            "security-change",
            "role",
        ),
        (r"[a-z_]+\.(create|created|add|import|transfer_incoming).*", "admin-action", "create"),
        (r"(.*\.)?invite.*", "admin-action", "create"),
        (r"[a-z_]+\.(destroy|delete|remove).*", "admin-action", "delete"),
        (r"[a-z_]+\.(enable|enabled|unarchived|restore)(\..*)?", "admin-action", "enable"),
        (r"[a-z_]+\.(disable|disabled|archived|suspend)(\..*)?", "admin-action", "disable"),
        (r"[a-z_]+\.(update|rename|transfer|change|edit).*", "admin-action", "update"),
        (r"workflows\..*", "admin-action", "execute"),
        (
            r"(repo|org|team|hook|workflows|business|enterprise|environment|project|codespaces)\..*",
            "admin-action",
            "other",
        ),
    )
)

# Fields that hold the state before, and the field with the state after.
_CHANGED: Final = (
    ("enforcement", "ruleset_old_enforcement", "ruleset_enforcement"),
    ("name", "old_name", "name"),
    ("login", "old_login", "user"),
    ("permission", "old_permission", "permission"),
    ("visibility", "previous_visibility", "visibility"),
)


def map_record(record: Mapping[str, Any], *, tenant: str | None = None) -> ImportedEvent:
    """One record as an event. ``tenant`` is the tenant of all of it; without, the organisation's,
    else the enterprise's (``github-<name>``), and ``github`` where the record names neither.

    GitHub records what took place, so the outcome is success unless the action says that it failed.

    Raises:
        Unmappable: The record has no usable time or action, or an action that is in no table here.
    """
    vendor = VendorRecord(record)
    occurred_at = _time(vendor)
    action = vendor.token("action")
    if action is None:
        raise Unmappable(Refusal.NO_ACTION)
    family, activity = _family(action.lower())
    home = tenant_name(tenant) if tenant is not None else _tenant(vendor)
    fields: dict[str, Any] = {
        "action": action.lower(),
        "outcome": "failure" if "failed" in action.lower() else "success",
        "actor": _actor(vendor, home),
        "source": origin(vendor, ("actor_ip",), ("user_agent",)),
        "session": _session(vendor),
        "request": None,
    }
    fields["targets"] = _targets(vendor, home, fields["actor"])
    fields["resources"] = _resources(vendor, home)
    changes = _changes(vendor)
    fields["labels"] = _labels(vendor)
    fields |= _family_fields(vendor, family, activity, fields, changes)
    return assemble(
        SOURCE,
        family,
        vendor,
        id=event_id(SOURCE, record),
        occurred_at=occurred_at,
        tenant=home,
        producer={"service": "github-audit"},
        fields=fields,
    )


def _family(action: str) -> tuple[str, str | None]:
    for pattern, family, activity in _FAMILIES:
        if pattern.fullmatch(action):
            return family, activity
    raise Unmappable(Refusal.ACTION_UNKNOWN)


def _time(vendor: VendorRecord) -> int:
    """GitHub's own time; else the time that a collector read from the record when it came in."""
    for key in ("@timestamp", "at_sign_timestamp", "created_at", "p_event_time"):
        occurred_at = to_micros(vendor.peek(key))
        if occurred_at is not None:
            vendor.take(key)
            return occurred_at
    raise Unmappable(Refusal.NO_TIME)


def _tenant(vendor: VendorRecord) -> str:
    repository = vendor.peek("repo") or vendor.peek("repository")
    owner = (
        repository.partition("/")[0] if isinstance(repository, str) and "/" in repository else ""
    )
    name = vendor.peek("org") or vendor.peek("business") or owner
    return tenant_name(f"github-{name}") if isinstance(name, str) and name else "github"


def _actor(vendor: VendorRecord, home: str) -> dict[str, Any]:
    number = required_id(vendor.text("actor_id"))
    login = vendor.text("actor")
    if number is None and login is None:
        return actor("anonymous", tenant=home, id_type="unknown", id=None)
    is_bot = vendor.flag("actor_is_bot") is True or (login or "").endswith("[bot]")
    return actor(
        "service" if is_bot else "user",
        tenant=home,
        id_type="github_user_id" if number else "github_login",
        id=number or required_id(login),
        name=login,
        email=email_in(vendor.text("external_identity_nameid")),
    )


def _session(vendor: VendorRecord) -> dict[str, Any] | None:
    """The id of the token that was used; never the token."""
    number = vendor.text("token_id")
    return {"id": number, "mfa": None, "issuer": None} if number is not None else None


def _targets(vendor: VendorRecord, home: str, acting: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The member that an action is about; the actor's own name in ``user`` says nothing more."""
    login = vendor.text("user")
    number = required_id(vendor.text("user_id"))
    if login is None or login == acting["name"]:
        return []
    return [
        target(
            "user",
            tenant=home,
            id_type="github_user_id" if number else "github_login",
            id=number or login,
            name=login,
        )
    ]


def _resources(vendor: VendorRecord, home: str) -> list[dict[str, Any]]:
    found = []
    repository = vendor.text("repo")
    again = vendor.text("repository")
    if repository or again:
        number = vendor.token("repo_id")
        found.append(resource("repository", tenant=home, id=number, path=repository or again))
    team = vendor.text("data", "team") or vendor.text("team")
    if team is not None:
        found.append(resource("team", tenant=home, path=team))
    for kind, *path in (
        ("webhook", "hook_id"),
        ("webhook", "data", "hook_id"),
        ("ruleset", "ruleset_id"),
        ("workflow", "workflow_id"),
        ("vulnerability_alert", "alert_number"),
    ):
        number = vendor.token(*path)
        if number is not None:
            found.append(resource(kind, tenant=home, id=number))
    organisation = vendor.text("org")
    if organisation is not None and not found:
        number = vendor.token("org_id")
        found.append(resource("organization", tenant=home, id=number, name=organisation))
    return found


def _changes(vendor: VendorRecord) -> list[dict[str, Any]]:
    found = []
    for name, before, after in _CHANGED:
        if isinstance(vendor.peek(before), str):
            old, new = vendor.text(before), vendor.text(after)
            found.append(change(name, old, new))
    return found


def _labels(vendor: VendorRecord) -> dict[str, str]:
    found = {
        "github_document_id": vendor.token("_document_id"),
        "github_operation_type": vendor.token("operation_type"),
        "github_country": vendor.token("actor_location", "country_code"),
        "github_visibility": vendor.token("visibility"),
    }
    return {key: text for key, text in found.items() if text is not None}


def _family_fields(
    vendor: VendorRecord,
    family: str,
    activity: str | None,
    fields: Mapping[str, Any],
    changes: list[dict[str, Any]],
) -> dict[str, Any]:
    if family == "authentication":
        return {
            "operation": activity,
            "auth_protocol": None,
            "logon_type": "interactive",
            "auth_factors": [],
            "is_new_logon": None,
            "is_remote": True,
            "failure_code": None,
        }
    if family == "data-access":
        return {
            "operation": activity,
            "data_classes": ["source_code"] if fields["action"].startswith("git.") else [],
            "record_count": None,
            "byte_count": None,
            "export_destination": None,
        }
    if family == "security-change":
        return {
            "change_kind": activity,
            "privileges_added": [],
            "privileges_removed": [],
            "key_fingerprint": vendor.token("fingerprint"),
            "break_glass": fields["action"] == "protected_branch.policy_override",
            "changes": changes,
        }
    if family == "admin-action":
        return {"operation": activity, "changes": changes}
    return {"self_service": not fields["targets"], "changes": changes}
