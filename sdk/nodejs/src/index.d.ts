/** Bounds: text in characters, the event and map entries in bytes, the rest in elements. */
export interface Limits {
  readonly event_bytes: number;
  readonly text_chars: number;
  readonly label_key_bytes: number;
  readonly label_value_bytes: number;
  readonly items: number;
  readonly changes: number;
}

export type FamilyName =
  | "authentication"
  | "data-access"
  | "profile-update"
  | "admin-action"
  | "security-change";

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
