"""Which family an AWS API call belongs to, by service and name: data, no behaviour but look-up."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Kind(NamedTuple):
    """A family, and the symbol of its activity field (None: the family has none)."""

    family: str
    activity: str | None


_LOGON = Kind("authentication", "logon")
_PROFILE = Kind("profile-update", None)

_AUTHENTICATION: Final = {
    "consolelogin": "logon",
    "externalidpdirectorylogin": "logon",
    "authenticate": "logon",
    "userauthentication": "logon",
    "credentialchallenge": "preauth",
    "credentialverification": "preauth",
    "checkmfa": "preauth",
    "assumerole": "logon",
    "assumerolewithsaml": "logon",
    "assumerolewithwebidentity": "logon",
    "assumeroot": "switch",
    "getsessiontoken": "logon",
    "getfederationtoken": "logon",
    "getsignintoken": "logon",
    "createtoken": "logon",
    "createtokenwithiam": "logon",
    "switchrole": "switch",
    "exitrole": "switch",
    "renewrole": "renew",
    "logout": "logoff",
}

_PROFILES: Final = frozenset(
    {
        "changepassword",
        "passwordupdated",
        "passwordrecoveryrequested",
        "passwordrecoverycompleted",
        "updateloginprofile",
        "updateuser",
        "putalternatecontact",
        "putcontactinformation",
        "updateaccountemailaddress",
    }
)

_READ_VERBS: Final = {
    "get": "read",
    "describe": "read",
    "batchget": "read",
    "head": "read",
    "lookup": "search",
    "search": "search",
    "query": "query",
    "scan": "query",
    "select": "query",
    "list": "list",
    "decrypt": "decrypt",
    "download": "download",
}

# Objects are data: what is done to them is access to data, not administration.
_OBJECT_CALLS: Final = {
    "putobject": "other",
    "copyobject": "other",
    "deleteobject": "other",
    "deleteobjects": "other",
    "restoreobject": "other",
    "startexporttask": "export",
    "exporttabletopointintime": "export",
}

# The first that matches ``service:name`` decides; names and services in small letters.
_SECURITY: Final = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"[a-z0-9-]*:.*(mfadevice|passwordpolicy)$", "mfa"),
        (
            (
                r"[a-z0-9-]*:.*(accesskey|loginprofile|sshpublickey|signingcertificate|samlprovider"
                r"|openidconnectprovider|servicespecificcredential|keypair)$"
            ),
            "credential",
        ),
        (r"(iam)?:.*(role|instanceprofile).*", "role"),
        (r"(iam)?:(attach|detach|put|delete)(user|group).*policy$", "privilege"),
        (r"(iam)?:(create|delete)(user|group)$", "privilege"),
        (r"iam:.*(group|policy).*", "privilege"),
        (r"iam:.*", "other"),
        (r"rds:(add|remove)role.*", "role"),
        (r"kms:.*", "key"),
        (r"cloudtrail:.*", "logging"),
        (
            (
                r"[a-z0-9-]*:.*(bucketlogging|flowlogs|querylogconfig|eventselectors|deliverychannel"
                r"|configurationrecorder|subscriptionfilter|loggroup)$"
            ),
            "logging",
        ),
        (r"(guardduty|securityhub|macie2?|config|access-analyzer|inspector2?):.*", "logging"),
        (r"[a-z0-9-]*:.*(securitygroup|networkacl).*", "network"),
        (
            (
                r"[a-z0-9-]*:.*(publicaccessblock|bucketpolicy|bucketacl|objectacl|bucketencryption"
                r"|ebsencryptionbydefault|repositorypolicy|resourcepolicy|projectvisibility)$"
            ),
            "policy",
        ),
        (r"ec2:modify(image|snapshot)attribute$", "policy"),
        (r"lambda:(add|remove)permission.*", "policy"),
        (r"(organizations|sso-directory|sso-admin|sso):.*", "policy"),
    )
)

_ADMIN_VERBS: Final = {
    "create": "create",
    "run": "create",
    "register": "create",
    "allocate": "create",
    "import": "create",
    "copy": "create",
    "delete": "delete",
    "terminate": "delete",
    "deregister": "delete",
    "release": "delete",
    "enable": "enable",
    "start": "enable",
    "activate": "enable",
    "disable": "disable",
    "stop": "disable",
    "deactivate": "disable",
    "update": "update",
    "modify": "update",
    "put": "update",
    "set": "update",
    "add": "update",
    "remove": "update",
    "attach": "update",
    "detach": "update",
    "associate": "update",
    "disassociate": "update",
    "authorize": "update",
    "revoke": "update",
    "change": "update",
    "tag": "update",
    "untag": "update",
    "leave": "update",
    "send": "execute",
    "invoke": "execute",
    "execute": "execute",
    "reboot": "execute",
    "failover": "execute",
    "assume": "execute",
    "schedule": "update",
    "cancel": "update",
    "switch": "execute",
    "renew": "execute",
}

_VERSION = re.compile(r"\d{8}(v\d+)?$")  # Lambda's names end with the date of the API
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


def kind_of(service: str, name: str, *, read_only: bool | None) -> Kind:
    """The family and activity of a call. ``service`` is the event source without its domain.

    ``read_only`` is the vendor's own word for it; None in records older than that field.
    """
    lowered = name.lower()
    if service in ("", "signin", "sts", "sso") and lowered in _AUTHENTICATION:
        return Kind("authentication", _AUTHENTICATION[lowered])
    if lowered in _PROFILES:
        return _PROFILE
    if lowered in _OBJECT_CALLS and service in ("", "s3", "rds", "dynamodb"):
        return Kind("data-access", _OBJECT_CALLS[lowered])
    verb = lowered if lowered in _READ_VERBS else _verb(name)
    if lowered.startswith("batchget"):
        verb = "batchget"
    # Some records say that a call which changes things is read-only: its verb knows better.
    if verb in _READ_VERBS or (read_only is True and verb not in _ADMIN_VERBS):
        return Kind("data-access", _READ_VERBS.get(verb, "other"))
    call = f"{service}:{lowered}"
    for pattern, kind in _SECURITY:
        if pattern.fullmatch(call):
            return Kind("security-change", kind)
    return Kind("admin-action", _ADMIN_VERBS.get(verb, "other"))


def action_of(service: str, name: str) -> str:
    """``noun.verb``: s3 PutBucketPolicy → ``s3_bucket_policy.put``, ConsoleLogin →
    ``signin_console.login``.
    """
    words = [word.lower() for word in _WORD.findall(_VERSION.sub("", name))]
    if not words:
        return f"{service or 'aws'}.unknown"
    if words[0] in _ADMIN_VERBS or words[0] in _READ_VERBS:
        verb, noun = words[0], words[1:]
    else:
        verb, noun = words[-1], words[:-1]
    subject = [part for part in (service.replace("-", "_"), *noun) if part]
    return f"{'_'.join(subject) or 'aws'}.{verb}"


def _verb(name: str) -> str:
    words = _WORD.findall(name)
    return words[0].lower() if words else ""
