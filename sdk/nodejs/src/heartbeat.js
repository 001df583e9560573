// Heartbeats: so that a trail can tell a service that is silent from one that is gone, and a hole in
// its sequences from events that were dropped.
import { encode } from "./codec.js";
import { families } from "./contract.js";
import { AuditError } from "./errors.js";
import { nowUs, uuid7 } from "./identity.js";
import { rawKey } from "./partition.js";
import { DeliveryClass, SYSTEM } from "./settings.js";

/** One after the first event, one every `intervalS` (0: none at all), one at the end. Best effort. */
export class Heartbeats {
  #publisher;
  #identity;
  #tenant;
  #intervalS;
  #timer;
  #log;
  #isOver;

  /** Without a tenant there are none. */
  constructor({ publisher, identity, tenant, intervalS, log }) {
    this.#publisher = publisher;
    this.#identity = identity;
    this.#tenant = tenant;
    this.#intervalS = intervalS;
    this.#log = log;
    this.#isOver = tenant === undefined || intervalS === 0;
  }

  /** Called with every event that was accepted. */
  begin() {
    if (this.#isOver || this.#timer !== undefined) return;
    this.#timer = setInterval(() => this.#emit(false), 1_000 * this.#intervalS);
    this.#timer.unref();
    this.#emit(false);
  }

  /** The last one, if there was a first. */
  end() {
    if (this.#isOver || this.#timer === undefined) return;
    this.#isOver = true;
    clearInterval(this.#timer);
    this.#emit(true);
  }

  #emit(final) {
    const atUs = nowUs();
    const event = {
      event_id: uuid7(atUs),
      occurred_at: atUs,
      tenant: this.#tenant,
      action: "producer.heartbeat",
      outcome: "success",
      operation: "heartbeat",
      actor: { type: "system", tenant: this.#tenant, id_type: "unknown", id: null },
      heartbeat: { interval_s: Math.ceil(this.#intervalS), final },
      topics: [...this.#publisher.tallies].filter(([family]) => family !== SYSTEM).map(counts),
    };
    const make = (sequence) => {
      event.producer = this.#identity.producer(sequence);
      return { key: rawKey(event), body: encode(SYSTEM, event) };
    };
    try {
      this.#publisher.accept(SYSTEM, make, DeliveryClass.BEST_EFFORT);
    } catch (error) {
      if (!(error instanceof AuditError)) throw error;
      this.#log.warn("audit_heartbeat_not_sent", { why: error.message }); // an event is worth more
    }
  }
}

function counts([family, { accepted, delivered, refused, ranges }]) {
  const dropped = ranges.map(({ first, last }) => `${first}-${last}`);
  return { topic: families.get(family).topic, accepted, delivered, refused, dropped };
}
