// Written by scripts/node_types.py from avro_schemas; never edited by hand.
//
// Fields of the events. What an event gets by itself, or from the request's context, may be left out.

/** Who acted. (tenant, id_type, id) names the data subject that owns every value marked actor; with id_type unknown or no id, the tenant's unattributed key of the month owns them. */
export interface Actor {
  /** What acted. */
  readonly type: ActorType;
  /** Home tenant of the actor, which may differ from the event's (support staff, guests). */
  readonly tenant: string;
  /** What kind of id the id is, such as user_id or email; unknown for text that names no known subject, such as the user name typed at a failed login. */
  readonly id_type: string;
  /** Stable id within tenant and id_type; null for an anonymous actor. */
  readonly id?: string | null;
  /** Login or display name. */
  readonly name?: string | null;
  /** E-mail address. */
  readonly email?: string | null;
  /** Roles in force while acting, from the service's closed list. */
  readonly roles?: readonly string[];
}

/** What acted: a person, a service account, the platform itself, or somebody who did not sign in. */
export type ActorType =
  | "user"
  | "service"
  | "system"
  | "anonymous";

/** What an administrator did. Numbers are OCSF's activity_id of class 3004. */
export type AdminOperation =
  | "create"
  | "update"
  | "delete"
  | "enable"
  | "disable"
  | "execute"
  | "other";

/** What the credential was used for. Numbers are OCSF's activity_id of class 3002. */
export type AuthenticationOperation =
  | "logon"
  | "logoff"
  | "renew"
  | "preauth"
  | "switch"
  | "other";

/** By whose order something may be missing from the trail, and which leaves that is about. In the ledger before anything is removed. */
export interface Authority {
  /** UUID of the request, as in the order object and in the ledger's tables. */
  readonly request_id?: string | null;
  /** How many leaves are affected. */
  readonly leaves?: number | bigint | null;
  /** Merkle tree hash (RFC 6962 section 2.1) over the hashes of the affected leaves, in the order of log name and leaf index; hexadecimal. */
  readonly root?: string | null;
  /** SHA-256 of the order object, which names the leaves; hexadecimal. */
  readonly order_hash?: string | null;
}

/** One field that changed, with its values before and after. They belong to the first target, else to the actor. */
export interface Change {
  /** Name of the changed field in the service's model, such as address.city; never a value. */
  readonly path: string;
  /** Value before, as text; null when there was none or it must not be recorded (a secret). */
  readonly old?: string | null;
  /** Value after, as text; null when there is none or it must not be recorded (a secret). */
  readonly new?: string | null;
}

/** How data was reached. OCSF: Datastore Activity (6005), or Web Resources Activity (6001) where only that has the activity. */
export type DataOperation =
  | "read"
  | "query"
  | "list"
  | "search"
  | "export"
  | "download"
  | "decrypt"
  | "share"
  | "other";

/** A person whose data was touched, often neither actor nor target. (tenant, id_type, id) owns the values marked subject in here. */
export interface DataSubject {
  /** Home tenant of the person. */
  readonly tenant: string;
  /** What kind of id the id is; unknown when it names no known subject. */
  readonly id_type: string;
  /** Stable id within tenant and id_type. */
  readonly id: string;
}

/** That events were taken away as a bundle: what was asked for, and what left. The right to personal data stands in reason_code, why in reason, who in actor. */
export interface Export {
  /** SHA-256 of the bundle, content_sha256 of its manifest; 64 hexadecimal digits. */
  readonly content_hash?: string;
  /** Events of this tenant in it. */
  readonly events?: number | bigint;
  /** Whether it holds values that were sealed. */
  readonly personal_data?: boolean;
  /** Whether every tenant's events were asked for; each tenant in it is told. */
  readonly all_tenants?: boolean;
  /** Begin of the period of occurred_at, microseconds since 1970-01-01 UTC; null: from the first event on. */
  readonly from_time?: number | bigint | null;
  /** Its end, not included; null: up to the newest event. */
  readonly to_time?: number | bigint | null;
  /** Families that were asked for; empty: all. */
  readonly families?: readonly string[];
  /** Whether the events of one person were asked for; who, nobody is told here. */
  readonly one_person?: boolean;
}

/** Of one producer, whose instance and epoch stand in producer. The last one of an epoch is final; a producer without a final one that stays silent for three intervals is gone. */
export interface Heartbeat {
  /** Seconds until the next one; 0 says nothing. */
  readonly interval_s?: number;
  /** The producer was closed in order; nothing of this epoch follows. */
  readonly final?: boolean;
}

/** How the subject signs in. Numbers are OCSF's logon_type_id. */
export type LogonType =
  | "unknown"
  | "system"
  | "interactive"
  | "network"
  | "batch"
  | "service"
  | "unlock"
  | "remote_interactive"
  | "other";

/** Whether what was tried took place. A refusal is a failure. */
export type Outcome =
  | "success"
  | "failure"
  | "unknown";

/** The process that reports the event; epoch and sequence let holes be found. */
export interface Producer {
  /** Name of the service, as deployed. */
  readonly service: string;
  /** Release of the service. */
  readonly version?: string | null;
  /** Name of the replica, pod or host process; never of a person's own device. */
  readonly instance?: string | null;
  /** Deployment environment, such as production. */
  readonly environment?: string | null;
  /** Grows at each start of the instance; the sequence begins again with it. */
  readonly epoch?: number | bigint | null;
  /** Number of the event within the epoch, from 0, without holes. */
  readonly sequence?: number | bigint | null;
}

/** That a store which follows the ledger was brought back to it, for leaves of one log. The ledger itself is never repaired. */
export interface Repair {
  /** Which one: index, archive or vault. */
  readonly store?: string;
  /** Of which log, as topic/partition/epoch; empty for what belonged to none. */
  readonly log?: string;
  /** How many leaves were written again. */
  readonly leaves?: number | bigint;
  /** The smallest of their indexes. */
  readonly first_leaf?: number | bigint;
  /** The largest of them. */
  readonly last_leaf?: number | bigint;
  /** Merkle tree hash (RFC 6962 section 2.1) over the leaf hashes of exactly these leaves, ascending, in hexadecimal; empty for none. */
  readonly root?: string;
  /** How many entries were removed because no leaf called for them or they were another leaf's. */
  readonly removed?: number | bigint;
}

/** Ids that join this event to requests and traces. Source: W3C Trace Context. */
export interface Request {
  /** Random id of the request. */
  readonly id?: string | null;
  /** Trace id, 32 hexadecimal digits. */
  readonly trace_id?: string | null;
  /** Span id, 16 hexadecimal digits. */
  readonly span_id?: string | null;
}

/** A thing that was acted upon: a document, a table, a role, a setting. Never a person: those are targets. */
export interface Resource {
  /** Tenant that the thing belongs to. */
  readonly tenant: string;
  /** Kind of thing, from the service's closed list. */
  readonly type: string;
  /** Opaque id. Stored in clear: never a name, an address or a path, which go to name and path. */
  readonly id?: string | null;
  /** What people call it. */
  readonly name?: string | null;
  /** Where it lies: a path, URL or ARN. */
  readonly path?: string | null;
}

/** Which control changed. OCSF: User Management (3007) for what a subject holds, Entity Management (3004) for the rest. */
export type SecurityChangeKind =
  | "role"
  | "privilege"
  | "credential"
  | "mfa"
  | "policy"
  | "network"
  | "logging"
  | "key"
  | "other";

/** The credential or session that the actor used. */
export interface Session {
  /** Id of the session or of the access key; never a secret that would open it. */
  readonly id?: string | null;
  /** Whether it was opened with more than one factor. */
  readonly mfa?: boolean | null;
  /** Identity provider that issued it; never the name of a person. */
  readonly issuer?: string | null;
}

/** How grave the event is to the service that reports it. Numbers are OCSF's severity_id. */
export type Severity =
  | "informational"
  | "low"
  | "medium"
  | "high"
  | "critical";

/** Where the action came from. Place and network are looked up from the address by the pipeline, not sent. */
export interface Source {
  /** IPv4 or IPv6 address of the client as the service sees it, in its usual text form. */
  readonly ip?: string | null;
  /** Port of the client; behind a shared address it tells people apart. */
  readonly port?: number | null;
  /** Host name of the client, or of the service that called for it, where no address is known. */
  readonly domain?: string | null;
  /** User agent text as received. */
  readonly user_agent?: string | null;
  /** Stable id of the device. */
  readonly device_id?: string | null;
}

/** What the trail tells about itself. Numbers are OCSF's activity_id of class 6002. */
export type SystemOperation =
  | "heartbeat"
  | "configuration"
  | "erasure"
  | "repair"
  | "gap"
  | "alert"
  | "other"
  | "redaction"
  | "expiry"
  | "hold"
  | "access"
  | "export";

/** A person or account besides the actor. (tenant, id_type, id) names the data subject that owns the values marked target in here. */
export interface Target {
  /** What this party is to the action. */
  readonly relation?: TargetRelation;
  /** What kind of account this is. */
  readonly type?: TargetType;
  /** Home tenant of this party. */
  readonly tenant: string;
  /** What kind of id the id is; unknown when it names no known subject. */
  readonly id_type: string;
  /** Stable id within tenant and id_type. */
  readonly id: string;
  /** Login or display name. */
  readonly name?: string | null;
  /** E-mail address. */
  readonly email?: string | null;
}

/** What the person or account is to the action: acted upon, acted for, who approved, or who owns. */
export type TargetRelation =
  | "target"
  | "on_behalf_of"
  | "approver"
  | "owner";

/** What kind of account a target is. */
export type TargetType =
  | "user"
  | "service"
  | "system"
  | "group"
  | "unknown";

/** What became of a producer's events of one topic in its epoch. Accepted less delivered less dropped is still on its way. */
export interface TopicProgress {
  /** The raw topic. */
  readonly topic?: string;
  /** Events that got a sequence: 0 up to this one, which is not given yet. */
  readonly accepted?: number | bigint;
  /** Events that the brokers have confirmed. */
  readonly delivered?: number | bigint;
  /** Events that were dropped before they got a sequence. */
  readonly refused?: number | bigint;
  /** Sequences that will not arrive, ascending: each a range, first-last, both included, such as 40100-40599. Where there are more ranges than an array may have, the oldest are joined. */
  readonly dropped?: readonly string[];
}

/** What every call takes. */
export interface CommonFields {
  /** UUID made by the producer once per event, kept over all retries; version 7 recommended. */
  readonly event_id?: string;
  /** When it happened, microseconds since 1970-01-01 UTC. */
  readonly occurred_at?: number | bigint | Date;
  /** Tenant in which it happened: who may see the event. */
  readonly tenant?: string;
  /** What was done, noun.verb in lower case, from the service's closed list. */
  readonly action: string;
  /** Whether it took place. Failures are recorded too. */
  readonly outcome?: Outcome;
  /** Why, from the service's closed list of codes; never text that a person typed. */
  readonly reason_code?: string | null;
  /** Why, in free text. */
  readonly reason?: string | null;
  /** How grave it is; indexed as OCSF's number, since ECS event.severity is a number. */
  readonly severity?: Severity;
  /** Who did it. */
  readonly actor?: Actor;
  /** Persons and accounts acted upon, acted for, approving or owning; the first owns the values of changes. */
  readonly targets?: readonly Target[];
  /** Things acted upon. */
  readonly resources?: readonly Resource[];
  /** Persons whose data was touched; an erasure finds events by them. */
  readonly data_subjects?: readonly DataSubject[];
  /** Where it came from. */
  readonly source?: Source | null;
  /** With which session or credential. */
  readonly session?: Session | null;
  /** In which request and trace. */
  readonly request?: Request | null;
  /** Purpose or lawful basis as the actor gave it. */
  readonly purpose?: string | null;
  /** Id of the ticket or change request that allows it. */
  readonly ticket?: string | null;
  /** One sentence for people. */
  readonly description?: string | null;
  /** Name of the tenant's retention class. */
  readonly retention_class?: string;
  /** Id of a legal hold that was in force when it happened. */
  readonly hold?: string | null;
  /** Taken from another system's records; only an importing principal may set it. */
  readonly imported?: boolean;
  /** Indexed. Sealed whole, keys too. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Kept, not indexed. Sealed whole, keys too. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** authentication: Somebody, or something, proved who they are, failed to, or ended a session. */
export interface AuthenticationFields extends CommonFields {
  /** What the credential was used for. */
  readonly operation?: AuthenticationOperation;
  /** Protocol, such as saml, oidc, password or kerberos. */
  readonly auth_protocol?: string | null;
  /** How the subject signs in. */
  readonly logon_type?: LogonType;
  /** Factors that were used, such as password, totp, webauthn or push; never their values. */
  readonly auth_factors?: readonly string[];
  /** A new session, not a session that was taken up again. */
  readonly is_new_logon?: boolean | null;
  /** From outside of the service's own network. */
  readonly is_remote?: boolean | null;
  /** Why it failed, from the service's closed list, such as invalid_password or account_locked. */
  readonly failure_code?: string | null;
}

/** data-access: Data was read, searched, exported or shared, or that was tried. */
export interface DataAccessFields extends CommonFields {
  /** How the data was reached. */
  readonly operation: DataOperation;
  /** Classes of the data, from the tenant's closed list, such as contact or health. */
  readonly data_classes?: readonly string[];
  /** How many records were delivered. */
  readonly record_count?: number | bigint | null;
  /** How many bytes were delivered. */
  readonly byte_count?: number | bigint | null;
  /** Where exported or shared data went: an address, URL or device. */
  readonly export_destination?: string | null;
}

/** profile-update: The data that a service holds about a person or account changed. The first target is whose profile it is; a self-service update may leave it out. */
export interface ProfileUpdateFields extends CommonFields {
  /** The person changed their own profile. */
  readonly self_service: boolean;
  /** What changed, only that. */
  readonly changes?: readonly Change[];
}

/** admin-action: Somebody with administrative rights made, changed, removed or ran something. Approvers are targets, the ticket is the common field. */
export interface AdminActionFields extends CommonFields {
  /** What was done. */
  readonly operation: AdminOperation;
  /** What changed, only that. */
  readonly changes?: readonly Change[];
}

/** security-change: A control changed: roles, privileges, credentials, factors, policies, network rules, logging or keys. */
export interface SecurityChangeFields extends CommonFields {
  /** Which control changed. */
  readonly change_kind: SecurityChangeKind;
  /** Names of privileges, roles or rules that are in force now and were not. */
  readonly privileges_added?: readonly string[];
  /** Names of privileges, roles or rules that were in force and are not now. */
  readonly privileges_removed?: readonly string[];
  /** Fingerprint of the key or certificate; never the key. */
  readonly key_fingerprint?: string | null;
  /** Done with emergency access, past the usual approval. */
  readonly break_glass?: boolean;
  /** What changed, only that; never secrets. */
  readonly changes?: readonly Change[];
}

/** system: The trail about itself: a producer says that it lives and what it has sent; people redact, erase, let expire, hold, export, repair, and hand out what is held on a person; later releases add gap, alert and configuration. */
export interface SystemFields extends CommonFields {
  /** What is told. */
  readonly operation: SystemOperation;
  /** That a producer lives, so that silence can be told from absence. */
  readonly heartbeat?: Heartbeat | null;
  /** Of a heartbeat: one entry for each raw topic that the producer has used in this epoch, so that a loss can be told from a late event. */
  readonly topics?: readonly TopicProgress[];
  /** That events were exported. */
  readonly export?: Export | null;
  /** Of a repair: what was brought back to the ledger, one event for each store and log. */
  readonly repair?: Repair | null;
  /** Of a redaction, an expiry or an erasure: the request, and the leaves that it is about. */
  readonly authority?: Authority | null;
}

/** The fields of an event, by family. */
export interface FieldsByFamily {
  "authentication": AuthenticationFields;
  "data-access": DataAccessFields;
  "profile-update": ProfileUpdateFields;
  "admin-action": AdminActionFields;
  "security-change": SecurityChangeFields;
  "system": SystemFields;
}
