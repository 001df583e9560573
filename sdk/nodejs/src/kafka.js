// @platformatic/kafka as this SDK uses it: one request at a time, and a producer that failed is not
// used again.
//
// Its idempotent producer takes a partition's next sequence number from the last answer, and builds a
// batch before it waits for its turn: of two `send` calls that overlap, the broker takes the second for
// a repetition of the first, acknowledges it, and keeps nothing (seen with 1.35.0: 20 calls at once, 20
// acknowledgements, one record). With one call at a time the numbers are right, also over its retries,
// which send the same records again. After a failure nothing is known of a partition's number: the next
// producer has an id of its own, so that a record may come twice and is never taken for another.
import { Producer } from "@platformatic/kafka";

import { AuditError } from "./errors.js";
import { murmur2 } from "./partition.js";

const RETRIES = 2; // of a request by the client; more, if at all, by a new producer
const RETRY_DELAY_MS = 200;
// What no waiting mends. Source: Kafka protocol guide, "Error Codes".
const REFUSALS = new Set([
  "MESSAGE_TOO_LARGE",
  "INVALID_TOPIC_EXCEPTION",
  "RECORD_LIST_TOO_LARGE",
  "TOPIC_AUTHORIZATION_FAILED",
  "CLUSTER_AUTHORIZATION_FAILED",
  "UNSUPPORTED_FOR_MESSAGE_FORMAT",
  "POLICY_VIOLATION",
  "INVALID_RECORD",
]);
const UNKNOWN_TOPIC = "UNKNOWN_TOPIC_OR_PARTITION"; // of a broker that has just started, too
const TOO_LARGE = new Set(["MESSAGE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"]);

/** The broker will never take these records. */
export class Refused extends AuditError {
  constructor(why) {
    super(`broker: ${why}`);
    this.isTooLarge = TOO_LARGE.has(why);
    this.isUnknownTopic = why === UNKNOWN_TOPIC;
  }
}

/** The broker does not answer as it should: the same records are sent again later. */
export class BrokerUnavailable extends AuditError {}

/** Sends records; for one caller, which waits for each `send` before the next. */
export class KafkaProducer {
  #producer;

  /** `options` are the client's own (`tls`, `sasl`, …), under what the trail needs. */
  constructor({ bootstrap, clientId, timeoutS, options }) {
    const timeoutMs = 1_000 * timeoutS;
    this.#producer = new Producer({
      clientId,
      connectTimeout: timeoutMs,
      timeout: timeoutMs,
      requestTimeout: 2 * timeoutMs,
      compression: "lz4",
      ...options,
      bootstrapBrokers: bootstrap.split(",").map((broker) => broker.trim()),
      retries: RETRIES,
      retryDelay: RETRY_DELAY_MS,
      idempotent: true, // and so acks=all, one request at a time
      strict: false,
    });
  }

  /**
   * Resolves when the brokers have every `{topic, key, value}`, acks=all. Rejects with `Refused` or
   * `BrokerUnavailable`; either way some may be there, and this producer must be closed.
   */
  async send(records) {
    const messages = records.map(({ topic, key, value }) => ({ topic, key, value, partition: murmur2(key) }));
    try {
      await this.#producer.send({ messages });
    } catch (error) {
      throw judged(error);
    }
  }

  /** Give the connections up, in the background. */
  close() {
    this.#producer.close().catch(() => {}); // it has failed, or nothing is left to lose
  }
}

function judged(error) {
  const names = namesIn(error);
  const refusal = names.find((name) => REFUSALS.has(name));
  if (refusal !== undefined) return new Refused(refusal);
  if (/^Unknown topic /.test(error.message)) return new Refused(UNKNOWN_TOPIC);
  return new BrokerUnavailable(`broker: ${names.at(-1) ?? error.name}`);
}

/** Codes in an error, in those that it is made of and in their causes; the most telling one last. */
function namesIn(error) {
  if (typeof error !== "object" || error === null) return [];
  const own = error.apiId ?? error.code;
  const inner = [...(error.errors ?? []), error.cause].flatMap(namesIn);
  return own === undefined ? inner : [own, ...inner];
}
