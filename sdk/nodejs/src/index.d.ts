import type {
  AdminActionFields,
  AuthenticationFields,
  DataAccessFields,
  FieldsByFamily,
  ProfileUpdateFields,
  SecurityChangeFields,
} from "./events.js";

export type * from "./events.js";

export type FamilyName = keyof FieldsByFamily;

/** How hard the SDK tries for an event; see the README's table. */
export type DeliveryClass = "best_effort" | "spool" | "fail_closed";
export const DeliveryClass: {
  readonly BEST_EFFORT: "best_effort";
  readonly SPOOL: "spool";
  readonly FAIL_CLOSED: "fail_closed";
};

/** Hooks, called from callers and when the sending thread reports. What they throw stops no event. */
export interface Metrics {
  /** An event was taken. */
  accepted?(family: FamilyName): void;
  /** The broker has an event, so long after it was accepted. */
  delivered?(family: FamilyName, seconds: number): void;
  /** Events that will not arrive: buffer_full, refused, closed. */
  dropped?(family: FamilyName, count: number, reason: string): void;
  /** Events of a process that is gone, found in the spool, are on the broker now. */
  resent?(count: number): void;
}

/** A name and facts; never an event's content. */
export interface Log {
  info(name: string, facts: Readonly<Record<string, unknown>>): void;
  warn(name: string, facts: Readonly<Record<string, unknown>>): void;
  error(name: string, facts: Readonly<Record<string, unknown>>): void;
}

/** Times are in seconds, sizes in bytes. What is not given comes from the environment, then from here. */
export interface AuditOptions {
  /** Name of the service, as deployed (AUDIT_SERVICE). */
  service?: string;
  /** Brokers, host:port, separated by commas (AUDIT_KAFKA_BOOTSTRAP; 127.0.0.1:19092). */
  bootstrap?: string;
  /** Confluent's REST interface of the registry (AUDIT_REGISTRY_URL; http://127.0.0.1:18080/apis/ccompat/v7). */
  registryUrl?: string;
  /** Of events that name none (AUDIT_TENANT). */
  tenant?: string;
  /** Release of the service (AUDIT_SERVICE_VERSION). */
  version?: string;
  /** Such as production (AUDIT_ENVIRONMENT). */
  environment?: string;
  /** Name of this process; host and process id unless given. */
  instance?: string;
  /** Options of @platformatic/kafka's producer (tls, sasl, compression), as plain data. */
  kafka?: Readonly<Record<string, unknown>>;
  registryUsername?: string;
  registryPassword?: string;
  /** Certificates in PEM that the registry's is checked with. */
  registryCaFile?: string;
  /** Class of a family; without it spool where there is a spoolDir, else best_effort. */
  delivery?: Readonly<Partial<Record<FamilyName, DeliveryClass>>>;
  /** Folder of the spool, for processes of this SDK on this host (AUDIT_SPOOL_DIR). */
  spoolDir?: string;
  /** What this process keeps there at most (256 MiB). */
  spoolMaxBytes?: number;
  /** What this process keeps in memory at most (32 MiB). */
  bufferBytes?: number;
  /** How long a fail_closed call waits for the broker (5). */
  failClosedTimeoutS?: number;
  /** How long the end of the process waits for the broker, the start of the sending thread included (10). */
  closeTimeoutS?: number;
  /** How long one request to broker or registry takes at most (5). */
  requestTimeoutS?: number;
  /** Between heartbeats (60); 0: none. */
  heartbeatS?: number;
  /** Whose heartbeats are; `tenant` unless given. */
  heartbeatTenant?: string;
  metrics?: Metrics;
  /** The standard error unless given. */
  log?: Log;
}

/** Sequences of a topic that will not arrive, and how many events were never given one. */
export interface Dropped {
  readonly ranges: readonly { readonly first: number; readonly last: number }[];
  readonly refused: number;
}

type WithDefault<Fields, Name extends keyof Fields> = Omit<Fields, Name> & Partial<Pick<Fields, Name>>;

/**
 * Publishes audit events. One per process is enough; nothing connects before the first event.
 *
 * Every call takes the event before it returns, and throws at once, awaited or not: `InvalidEvent` (it
 * breaks its contract; nothing was sent) or `NotAccepted` (the spool is full, or the client closed). The
 * promise that it returns has the event's id. For `best_effort` and `spool` it is resolved and never
 * rejects; for `fail_closed` it resolves when the broker has the event, else rejects: `NotDelivered`.
 */
export class Audit {
  /** Throws `AuditConfigurationError` for a setting that does not fit. */
  constructor(options?: AuditOptions);

  /** An authentication: `action` is session.start unless given, `operation` logon. */
  login(fields: WithDefault<AuthenticationFields, "action">): Promise<string>;
  /** Data that was read, searched, exported or shared. */
  dataAccess(fields: DataAccessFields): Promise<string>;
  /** What a service holds about a person changed: `changes`, and whose it is: `targets`. */
  profileUpdate(fields: WithDefault<ProfileUpdateFields, "action">): Promise<string>;
  /** Something that takes administrative rights. */
  adminAction(fields: AdminActionFields): Promise<string>;
  /** A control changed: a role, a credential, a factor, a policy, a key. */
  securityChange(fields: SecurityChangeFields): Promise<string>;
  /** An event of any family. */
  emit<Name extends FamilyName>(family: Name, fields: FieldsByFamily[Name]): Promise<string>;

  /**
   * Throws `InvalidEvent` if an event as `emit` would publish it here and now breaks its contract, with the
   * longest sequence number as well. Sends nothing, and says nothing of spool, memory or broker.
   */
  check<Name extends FamilyName>(family: Name, fields: FieldsByFamily[Name]): void;

  /** Wait until the broker has what was accepted; how many events it has not. */
  flush(timeoutS?: number): Promise<number>;
  /** Flush and end; how many events the broker has not. At exit, on SIGTERM and on SIGINT it is done anyway. */
  close(timeoutS?: number): Promise<number>;
  [Symbol.asyncDispose](): Promise<number>;
  /** `close` where no event loop goes on: this thread stands still, `closeTimeoutS` at most. */
  drainAndClose(): number;

  /** By topic, of those with such events: what will not arrive. */
  readonly dropped: Readonly<Record<string, Dropped>>;
  /** Events that the broker has not confirmed yet. */
  readonly pending: number;
}

/** Fields of a context: what its events get unless the call says otherwise. */
export type ContextFields = Partial<Omit<AuthenticationFields & DataAccessFields, "event_id" | "operation">>;

/** Run `work`; every event inside, also after an `await`, gets these fields. */
export function auditContext<Result>(fields: ContextFields, work: () => Result): Result;

/** Add to the context that is open: where a request is authenticated. Throws if none is open. */
export function setContext(fields: ContextFields): void;

/** Bounds: text in characters, the event and map entries in bytes, the rest in elements. */
export interface Limits {
  readonly event_bytes: number;
  readonly text_chars: number;
  readonly label_key_bytes: number;
  readonly label_value_bytes: number;
  readonly items: number;
  readonly changes: number;
}

/** One event family: where its events go, and what they must keep to. */
export interface Family {
  readonly topic: string;
  readonly subject: string;
  readonly schema: Readonly<Record<string, unknown>>;
  readonly rules: readonly Readonly<Record<string, unknown>>[];
}

/** One thing that is wrong with an event. `detail` never holds a value of the event. */
export interface Problem {
  readonly path: string;
  readonly rule: string;
  readonly detail: string;
}

/** Root of every failure that this SDK throws on purpose. */
export class AuditError extends Error {}

/** The event breaks its contract: mend the call. Nothing was sent. */
export class InvalidEvent extends AuditError {
  readonly family: FamilyName;
  readonly problems: readonly Problem[];
}

/** A setting that a person must mend; the message names it. */
export class AuditConfigurationError extends AuditError {}

/** The event was not taken, and will not arrive: the spool is full, or the client is closed. */
export class NotAccepted extends AuditError {}

/** The broker did not confirm the event in time. Sending it again, with its id, doubles nothing. */
export class NotDelivered extends AuditError {
  readonly eventId: string;
}

/** An event as its family's schema names the fields; whole numbers are number or bigint. */
export type AuditEvent = Readonly<Record<string, unknown>>;

export const limits: Limits;
export const families: ReadonlyMap<FamilyName, Family>;

/** The Avro body of an event. Throws `InvalidEvent` with everything that is wrong. */
export function encode(family: FamilyName, event: AuditEvent): Buffer;

/** Everything that is wrong with an event, in the schema's order; nothing: it may be sent. */
export function validate(family: FamilyName, event: AuditEvent): Problem[];

/** Confluent's wire format: magic byte 0, the schema id in four bytes, the Avro body. */
export function frame(schemaId: number, body: Buffer): Buffer;

/** The Kafka key of an event: `tenant/actor id`; `-` for an anonymous actor. */
export function rawKey(event: AuditEvent): Buffer;

/** Kafka's default partitioner's hash of a key, made positive. */
export function murmur2(key: Buffer): number;
