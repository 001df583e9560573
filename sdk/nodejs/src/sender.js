// Batches to the broker: the same one again and again until every record is there or refused.
import { families } from "./contract.js";
import { AuditConfigurationError } from "./errors.js";
import { BrokerUnavailable, Refused } from "./kafka.js";
import { RegistryUnavailable } from "./registry.js";
import { SYSTEM } from "./settings.js";
import { frame } from "./wire.js";

const RETRY_MS = 1_000;
const UNKNOWN_TOPIC_MS = 30_000; // a topic that is known nowhere by then is not there
const PRODUCER_MAX_RECORDS = 2 ** 30; // a partition's sequence numbers go to 2^31, and start anew

/** For one caller, which waits for each `send` before the next: that keeps the order. */
export class Sender {
  #makeProducer;
  #ids;
  #onTrouble;
  #sleep;
  #producer;
  #sent = 0;
  #unknownUntilMs = new Map(); // topic → when it is no longer waited for
  #now;

  /** `onTrouble(why)` is called when something has to be waited for, and with "" when it goes on. */
  constructor({ makeProducer, ids, onTrouble, sleep, now = () => performance.now() }) {
    this.#makeProducer = makeProducer;
    this.#ids = ids;
    this.#onTrouble = onTrouble;
    this.#sleep = sleep;
    this.#now = now;
  }

  /**
   * Resolves when the broker has `{family, key, body}` records, all but those that it will never take:
   * a map from their places to the reasons. Waits for broker and registry as long as it takes.
   */
  async send(records) {
    const refused = new Map();
    let left = records.map(({ family, key, body }, place) => ({ place, family, key, body }));
    for (;;) {
      try {
        left = await this.#framed(left, refused);
        await this.#deliver(left, refused);
        this.#onTrouble("");
        return refused;
      } catch (error) {
        if (!isTrouble(error)) throw error;
        this.#onTrouble(error.message);
        left = left.filter(({ isDone }) => !isDone);
        await this.#sleep(RETRY_MS);
      }
    }
  }

  /** With topic and value; heartbeats are refused where their schema is not registered. */
  async #framed(records, refused) {
    const ids = new Map();
    for (const { family } of records) {
      if (ids.has(family)) continue;
      try {
        ids.set(family, await this.#ids.ask(family));
      } catch (error) {
        if (family !== SYSTEM || !(error instanceof AuditConfigurationError)) throw error;
        ids.set(family, error.message);
      }
    }
    const known = [];
    for (const record of records) {
      const id = ids.get(record.family);
      if (typeof id === "string") refused.set(record.place, id);
      else {
        record.topic = families.get(record.family).topic;
        record.value ??= frame(id, record.body);
        known.push(record);
      }
    }
    return known;
  }

  /** What is refused together is tried by topic, then in halves if it was too large. */
  async #deliver(records, refused) {
    if (records.length === 0) return;
    try {
      await this.#produce(records);
      for (const record of records) record.isDone = true;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const parts = partsOf(records, error);
      if (parts.length > 1) for (const part of parts) await this.#deliver(part, refused);
      else this.#refuse(records, refused, error);
    }
  }

  /** A topic may be unknown to a broker that has just started: that is waited for, once for each. */
  #refuse(records, refused, error) {
    const { topic } = records[0];
    if (error.isUnknownTopic) {
      if (!this.#unknownUntilMs.has(topic)) this.#unknownUntilMs.set(topic, this.#now() + UNKNOWN_TOPIC_MS);
      if (this.#now() < this.#unknownUntilMs.get(topic)) throw new BrokerUnavailable(error.message);
    }
    for (const record of records) {
      record.isDone = true;
      refused.set(record.place, error.message);
    }
  }

  async #produce(records) {
    this.#producer ??= this.#makeProducer();
    try {
      await this.#producer.send(records);
      if (this.#unknownUntilMs.size) for (const { topic } of records) this.#unknownUntilMs.delete(topic);
      this.#sent += records.length;
      if (this.#sent > PRODUCER_MAX_RECORDS) this.#end();
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  #end() {
    this.#producer.close();
    this.#producer = undefined;
    this.#sent = 0;
  }
}

function isTrouble(error) {
  return [BrokerUnavailable, RegistryUnavailable, AuditConfigurationError].some((one) => error instanceof one);
}

function partsOf(records, { isTooLarge }) {
  const byTopic = new Map();
  for (const record of records) {
    if (!byTopic.has(record.topic)) byTopic.set(record.topic, []);
    byTopic.get(record.topic).push(record);
  }
  if (byTopic.size > 1) return [...byTopic.values()];
  const half = Math.ceil(records.length / 2);
  return isTooLarge && records.length > 1 ? [records.slice(0, half), records.slice(half)] : [];
}
