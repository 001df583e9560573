"""What each call takes: the fields of docs/events.md, as types. Made by scripts/python_types.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, Required, TypedDict


class Actor(TypedDict, total=False):
    """Who acted. (tenant, id_type, id) names the data subject that owns every value marked actor; with id_type unknown or no id, the tenant's unattributed key of the month owns them."""

    type: Required[Literal["user", "service", "system", "anonymous"]]
    """What acted."""
    tenant: Required[str]
    """Home tenant of the actor, which may differ from the event's (support staff, guests)."""
    id_type: Required[str]
    """What kind of id the id is, such as user_id or email; unknown for text that names no known subject, such as the user name typed at a failed login."""
    id: str | None
    """Stable id within tenant and id_type; null for an anonymous actor."""
    name: str | None
    """Login or display name."""
    email: str | None
    """E-mail address."""
    roles: Sequence[str]
    """Roles in force while acting, from the service's closed list."""


class Target(TypedDict, total=False):
    """A person or account besides the actor. (tenant, id_type, id) names the data subject that owns the values marked target in here."""

    relation: Literal["target", "on_behalf_of", "approver", "owner"]
    """What this party is to the action."""
    type: Literal["user", "service", "system", "group", "unknown"]
    """What kind of account this is."""
    tenant: Required[str]
    """Home tenant of this party."""
    id_type: Required[str]
    """What kind of id the id is; unknown when it names no known subject."""
    id: Required[str]
    """Stable id within tenant and id_type."""
    name: str | None
    """Login or display name."""
    email: str | None
    """E-mail address."""


class Resource(TypedDict, total=False):
    """A thing that was acted upon: a document, a table, a role, a setting. Never a person: those are targets."""

    tenant: Required[str]
    """Tenant that the thing belongs to."""
    type: Required[str]
    """Kind of thing, from the service's closed list."""
    id: str | None
    """Opaque id. Stored in clear: never a name, an address or a path, which go to name and path."""
    name: str | None
    """What people call it."""
    path: str | None
    """Where it lies: a path, URL or ARN."""


class DataSubject(TypedDict, total=False):
    """A person whose data was touched, often neither actor nor target. (tenant, id_type, id) owns the values marked subject in here."""

    tenant: Required[str]
    """Home tenant of the person."""
    id_type: Required[str]
    """What kind of id the id is; unknown when it names no known subject."""
    id: Required[str]
    """Stable id within tenant and id_type."""


class Source(TypedDict, total=False):
    """Where the action came from. Place and network are looked up from the address by the pipeline, not sent."""

    ip: str | None
    """IPv4 or IPv6 address of the client as the service sees it, in its usual text form."""
    port: int | None
    """Port of the client; behind a shared address it tells people apart."""
    domain: str | None
    """Host name of the client, or of the service that called for it, where no address is known."""
    user_agent: str | None
    """User agent text as received."""
    device_id: str | None
    """Stable id of the device."""


class Session(TypedDict, total=False):
    """The credential or session that the actor used."""

    id: str | None
    """Id of the session or of the access key; never a secret that would open it."""
    mfa: bool | None
    """Whether it was opened with more than one factor."""
    issuer: str | None
    """Identity provider that issued it; never the name of a person."""


class Request(TypedDict, total=False):
    """Ids that join this event to requests and traces. Source: W3C Trace Context."""

    id: str | None
    """Random id of the request."""
    trace_id: str | None
    """Trace id, 32 hexadecimal digits."""
    span_id: str | None
    """Span id, 16 hexadecimal digits."""


class CommonFields(TypedDict, total=False):
    """What every call takes; the client fills in what is left out."""

    event_id: str
    """UUID made by the producer once per event, kept over all retries; version 7 recommended."""
    occurred_at: int | datetime
    """When it happened, microseconds since 1970-01-01 UTC."""
    tenant: str
    """Tenant in which it happened: who may see the event."""
    outcome: Literal["success", "failure", "unknown"]
    """Whether it took place. Failures are recorded too."""
    reason_code: str | None
    """Why, from the service's closed list of codes; never text that a person typed."""
    reason: str | None
    """Why, in free text."""
    severity: Literal["informational", "low", "medium", "high", "critical"]
    """How grave it is; indexed as OCSF's number, since ECS event.severity is a number."""
    actor: Actor
    """Who did it."""
    targets: Sequence[Target]
    """Persons and accounts acted upon, acted for, approving or owning; the first owns the values of changes."""
    resources: Sequence[Resource]
    """Things acted upon."""
    data_subjects: Sequence[DataSubject]
    """Persons whose data was touched; an erasure finds events by them."""
    source: Source | None
    """Where it came from."""
    session: Session | None
    """With which session or credential."""
    request: Request | None
    """In which request and trace."""
    purpose: str | None
    """Purpose or lawful basis as the actor gave it."""
    ticket: str | None
    """Id of the ticket or change request that allows it."""
    description: str | None
    """One sentence for people."""
    retention_class: str
    """Name of the tenant's retention class."""
    hold: str | None
    """Id of a legal hold that was in force when it happened."""
    imported: bool
    """Taken from another system's records; only an importing principal may set it."""
    labels: Mapping[str, str]
    """Indexed. Sealed whole, keys too."""
    metadata: Mapping[str, str]
    """Kept, not indexed. Sealed whole, keys too."""


class AuthenticationFields(CommonFields, total=False):
    """Somebody, or something, proved who they are, failed to, or ended a session."""

    action: str
    """What was done, noun.verb in lower case, from the service's closed list."""
    operation: Literal["logon", "logoff", "renew", "preauth", "switch", "other"]
    """What the credential was used for."""
    auth_protocol: str | None
    """Protocol, such as saml, oidc, password or kerberos."""
    logon_type: Literal[
        "unknown",
        "system",
        "interactive",
        "network",
        "batch",
        "service",
        "unlock",
        "remote_interactive",
        "other",
    ]
    """How the subject signs in."""
    auth_factors: Sequence[str]
    """Factors that were used, such as password, totp, webauthn or push; never their values."""
    is_new_logon: bool | None
    """A new session, not a session that was taken up again."""
    is_remote: bool | None
    """From outside of the service's own network."""
    failure_code: str | None
    """Why it failed, from the service's closed list, such as invalid_password or account_locked."""


class DataAccessFields(CommonFields, total=False):
    """Data was read, searched, exported or shared, or that was tried."""

    data_classes: Sequence[str]
    """Classes of the data, from the tenant's closed list, such as contact or health."""
    record_count: int | None
    """How many records were delivered."""
    byte_count: int | None
    """How many bytes were delivered."""
    export_destination: str | None
    """Where exported or shared data went: an address, URL or device."""


class Change(TypedDict, total=False):
    """One field that changed, with its values before and after. They belong to the first target, else to the actor."""

    path: Required[str]
    """Name of the changed field in the service's model, such as address.city; never a value."""
    old: str | None
    """Value before, as text; null when there was none or it must not be recorded (a secret)."""
    new: str | None
    """Value after, as text; null when there is none or it must not be recorded (a secret)."""


class ProfileUpdateFields(CommonFields, total=False):
    """The data that a service holds about a person or account changed. The first target is whose profile it is; a self-service update may leave it out."""

    action: str
    """What was done, noun.verb in lower case, from the service's closed list."""
    changes: Sequence[Change]
    """What changed, only that."""


class AdminActionFields(CommonFields, total=False):
    """Somebody with administrative rights made, changed, removed or ran something. Approvers are targets, the ticket is the common field."""

    changes: Sequence[Change]
    """What changed, only that."""


class SecurityChangeFields(CommonFields, total=False):
    """A control changed: roles, privileges, credentials, factors, policies, network rules, logging or keys."""

    privileges_added: Sequence[str]
    """Names of privileges, roles or rules that are in force now and were not."""
    privileges_removed: Sequence[str]
    """Names of privileges, roles or rules that were in force and are not now."""
    key_fingerprint: str | None
    """Fingerprint of the key or certificate; never the key."""
    break_glass: bool
    """Done with emergency access, past the usual approval."""
    changes: Sequence[Change]
    """What changed, only that; never secrets."""
