"""AWS CloudTrail records as events.

Source: AWS CloudTrail User Guide, "CloudTrail record contents" (event versions 1.05 to 1.11).
"""

from __future__ import annotations

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
from pipeline.importers.aws_cloudtrail_actions import Kind, action_of, kind_of
from pipeline.importers.events import ImportedEvent, Refusal, Unmappable
from pipeline.importers.times import to_micros
from pipeline.importers.vendor_record import VendorRecord

SOURCE: Final = "aws-cloudtrail"

# Where a request was only checked or its answer is not known, nothing took place for sure.
_DRY_RUN = frozenset({"Client.DryRunOperation", "DryRunOperation"})

# Request parameters that name a thing: (type, whether the value is an opaque id).
_THINGS: Final = {
    "bucketName": ("AWS::S3::Bucket", False),
    "instanceId": ("AWS::EC2::Instance", True),
    "groupId": ("AWS::EC2::SecurityGroup", True),
    "networkAclId": ("AWS::EC2::NetworkAcl", True),
    "imageId": ("AWS::EC2::Image", True),
    "snapshotId": ("AWS::EC2::Snapshot", True),
    "vpcId": ("AWS::EC2::VPC", True),
    "routeTableId": ("AWS::EC2::RouteTable", True),
    "keyId": ("AWS::KMS::Key", False),
    "secretId": ("AWS::SecretsManager::Secret", False),
    "functionName": ("AWS::Lambda::Function", False),
    "dBInstanceIdentifier": ("AWS::RDS::DBInstance", False),
    "dBClusterIdentifier": ("AWS::RDS::DBCluster", False),
    "dBSnapshotIdentifier": ("AWS::RDS::DBSnapshot", False),
    "roleName": ("AWS::IAM::Role", False),
    "roleArn": ("AWS::IAM::Role", False),
    "groupName": ("AWS::IAM::Group", False),
    "trailName": ("AWS::CloudTrail::Trail", False),
    "repositoryName": ("AWS::ECR::Repository", False),
    "tableName": ("AWS::DynamoDB::Table", False),
}


def map_record(record: Mapping[str, Any], *, tenant: str | None = None) -> ImportedEvent:
    """One record as an event. ``tenant`` is the tenant of all of it; without, the account's
    (``aws-<account>``), and ``aws`` where the record names none.

    Raises:
        Unmappable: The record has no usable time or name.
    """
    vendor = VendorRecord(record)
    occurred_at = _time(vendor)
    name = vendor.token("eventName") or vendor.token("eventType")
    if name is None:
        raise Unmappable(Refusal.NO_ACTION)
    service = _service(vendor)
    kind = kind_of(service, name, read_only=vendor.flag("readOnly"))
    home = tenant_name(tenant) if tenant is not None else _account(vendor, "recipientAccountId")
    fields = {
        "action": action_of(service, name),
        "labels": _labels(vendor, name),
        "targets": _targets(vendor, kind, home),
        "resources": _resources(vendor, home),
        **_parties(vendor, home, fixed=tenant is not None),
        **_outcome(vendor, kind),
        **_family_fields(vendor, kind),
    }
    if kind.family == "profile-update":
        fields["self_service"] = _is_self(fields)
    return assemble(
        SOURCE,
        kind.family,
        vendor,
        id=event_id(SOURCE, record),
        occurred_at=occurred_at,
        tenant=home,
        producer={"service": SOURCE, "version": vendor.token("eventVersion")},
        fields=fields,
    )


def _time(vendor: VendorRecord) -> int:
    """``eventTime``; else the time that a collector read from the record when it came in."""
    for key in ("eventTime", "p_event_time"):
        occurred_at = to_micros(vendor.peek(key))
        if occurred_at is not None:
            vendor.take(key)
            return occurred_at
    raise Unmappable(Refusal.NO_TIME)


def _service(vendor: VendorRecord) -> str:
    """``s3.amazonaws.com`` → ``s3``; empty when the record does not say."""
    event_source = vendor.token("eventSource") or ""
    return event_source.lower().removesuffix(".amazonaws.com").replace(".", "_")


def _account(vendor: VendorRecord, *path: str) -> str:
    account = vendor.peek(*path) or vendor.peek("userIdentity", "accountId")
    text = str(account) if isinstance(account, (str, int)) else ""
    return f"aws-{text}" if text.isascii() and text.isdecimal() and len(text) <= 32 else "aws"


def _labels(vendor: VendorRecord, name: str) -> dict[str, str]:
    found = {
        "aws_event_name": name,
        "aws_event_source": vendor.peek("eventSource"),
        "aws_region": vendor.token("awsRegion"),
        "aws_event_id": vendor.token("eventID"),
    }
    return {key: text for key, text in found.items() if isinstance(text, str) and text}


def _parties(vendor: VendorRecord, home: str, *, fixed: bool) -> dict[str, Any]:
    """Actor, source, session and request."""
    identity = "userIdentity"
    mfa = vendor.flag(identity, "sessionContext", "attributes", "mfaAuthenticated")
    if mfa is None:
        mfa = vendor.flag("additionalEventData", "MFAUsed")
    session_id = vendor.text(identity, "accessKeyId")
    request_id = vendor.token("requestID")
    return {
        "actor": _actor(vendor, home, fixed=fixed),
        "source": origin(vendor, ("sourceIPAddress",), ("userAgent",)),
        "session": (
            {"id": session_id, "mfa": mfa, "issuer": None}
            if session_id is not None or mfa is not None
            else None
        ),
        "request": (
            {"id": request_id, "trace_id": None, "span_id": None}
            if request_id is not None
            else None
        ),
    }


def _actor(vendor: VendorRecord, home: str, *, fixed: bool) -> dict[str, Any]:
    """The caller. Its home is the account of its identity, which may be another one."""
    identity = "userIdentity"
    kind = vendor.token(identity, "type")
    arn, user_name = vendor.text(identity, "arn"), vendor.text(identity, "userName")
    invoked_by = vendor.text(identity, "invokedBy")
    tenant = home
    if not fixed and vendor.peek(identity, "accountId"):
        tenant = _account(vendor, identity, "accountId")
    candidates = (
        ("aws_principal_id", required_id(vendor.take(identity, "principalId"))),
        ("aws_arn", required_id(arn)),
        ("aws_user_name", required_id(user_name)),
        ("aws_service", required_id(invoked_by)),
    )
    id_type, found = next((pair for pair in candidates if pair[1] is not None), ("unknown", None))
    if found is None:
        return actor("anonymous", tenant=tenant, id_type="unknown", id=None)
    session_name = _last_part(arn)
    is_service = kind == "AWSService" or (invoked_by or "").endswith(".amazonaws.com")
    if kind == "Unknown" or user_name == "HIDDEN_DUE_TO_SECURITY_REASONS":
        id_type = "unknown"  # the name typed at a failed sign-in may be anybody's, or a password
    return actor(
        "service" if is_service else "user",
        tenant=tenant,
        id_type=id_type,
        id=found,
        name=user_name or session_name,
        email=email_in(user_name, session_name, found.partition(":")[2]),
    )


def _last_part(arn: str | None) -> str | None:
    """``arn:aws:sts::1:assumed-role/Role/alice`` → ``alice``."""
    return arn.rpartition("/")[2] or None if arn is not None and "/" in arn else None


def _outcome(vendor: VendorRecord, kind: Kind) -> dict[str, Any]:
    code = vendor.token("errorCode")
    answers = vendor.peek("responseElements")
    failed = isinstance(answers, Mapping) and "Failure" in answers.values()
    outcome = "failure" if code is not None or failed or vendor.peek("errorMessage") else "success"
    if code in _DRY_RUN:
        outcome = "unknown"
    found: dict[str, Any] = {
        "outcome": outcome,
        "reason_code": code,
        "reason": vendor.text("errorMessage"),
        "severity": "informational",
    }
    if kind.family == "authentication":
        found["failure_code"] = code or ("login_failed" if failed else None)
    return found


def _resources(vendor: VendorRecord, home: str) -> list[dict[str, Any]]:
    """The record's own list, else what the request's parameters name."""
    found = []
    for index in range(vendor.size("resources")):
        path = vendor.text("resources", index, "ARN")
        kind = vendor.token("resources", index, "type") or "aws_resource"
        vendor.take("resources", index, "accountId")
        if path is not None:
            found.append(resource(kind, tenant=home, path=path))
    if found:
        return found
    for parameter, (kind, is_opaque) in _THINGS.items():
        if is_opaque:
            text = vendor.token("requestParameters", parameter)
            if text is not None:
                found.append(resource(kind, tenant=home, id=text))
        elif (text := vendor.text("requestParameters", parameter)) is not None:
            where = "path" if text.startswith("arn:") else "name"
            found.append({**resource(kind, tenant=home), where: text})
    return found


def _targets(vendor: VendorRecord, kind: Kind, home: str) -> list[dict[str, Any]]:
    """The IAM user that a call is about."""
    if kind.family not in ("security-change", "profile-update", "admin-action"):
        return []
    name = vendor.text("requestParameters", "userName") or vendor.text(
        "responseElements", "user", "userName"
    )
    if name is None:
        return []
    number = required_id(vendor.take("responseElements", "user", "userId"))
    return [
        target(
            "user",
            tenant=home,
            id_type="aws_user_id" if number else "aws_user_name",
            id=number or name,
            name=name,
            email=email_in(name),
        )
    ]


def _is_self(fields: Mapping[str, Any]) -> bool:
    """No other user is named, or the one named is the caller."""
    return all(party["name"] == fields["actor"]["name"] for party in fields["targets"])


def _family_fields(vendor: VendorRecord, kind: Kind) -> dict[str, Any]:
    if kind.family == "authentication":
        is_console = vendor.peek("eventType") == "AwsConsoleSignIn"
        return {
            "operation": kind.activity,
            "auth_protocol": "saml"
            if vendor.peek("additionalEventData", "SamlProviderArn")
            else None,
            "logon_type": "interactive" if is_console else "network",
            "auth_factors": [],
            "is_new_logon": True if kind.activity == "logon" else None,
            "is_remote": None,
        }
    if kind.family == "data-access":
        return {
            "operation": kind.activity,
            "data_classes": [],
            "record_count": None,
            "byte_count": vendor.count("additionalEventData", "bytesTransferredOut"),
            "export_destination": vendor.text("requestParameters", "s3BucketName"),
        }
    if kind.family == "admin-action":
        return {"operation": kind.activity, "changes": []}
    if kind.family == "security-change":
        return {
            "change_kind": kind.activity,
            "privileges_added": _granted_policy(vendor),
            "privileges_removed": [],
            "key_fingerprint": None,
            "break_glass": False,
            "changes": [],
        }
    return {"changes": []}


def _granted_policy(vendor: VendorRecord) -> list[str]:
    """The policy that a call attaches, if it is one of AWS's own: those names tell of nobody."""
    name = vendor.peek("eventName")
    policy = vendor.peek("requestParameters", "policyArn")
    if not isinstance(policy, str) or not isinstance(name, str) or not name.startswith("Attach"):
        return []
    if not policy.startswith("arn:aws:iam::aws:policy/"):
        return []
    text = vendor.text("requestParameters", "policyArn")
    return [text] if text is not None else []
