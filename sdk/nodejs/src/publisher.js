// From accepted events to confirmed ones, in the background.
//
// Callers never wait for the broker: an event is packed into a batch (or written to the spool) and
// that is all. Batches go to the sending thread in order, a few at a time, and its reports settle them.
import { AsyncResource } from "node:async_hooks";

import { NotAccepted } from "./errors.js";
import { STDERR, teller } from "./hooks.js";
import { Item, Outbox } from "./outbox.js";
import { DeliveryClass } from "./settings.js";
import { Tally } from "./tally.js";
import { Waiters } from "./waiters.js";

const { BEST_EFFORT, SPOOL, FAIL_CLOSED } = DeliveryClass;
const WINDOW = 2; // batches that the sending thread has: one under way, the next ready
const LINGER_MS = 5; // an event waits so long for others to go with
const RETRY_MS = 1_000; // until what a broker refused is tried again, and a lost thread replaced

/** Everything behind the call. */
export class Publisher {
  #line;
  #makeSpool;
  #tell;
  #log;
  #bufferBytes;
  #now;
  #outbox = new Outbox((path) => this.#log.error("audit_spool_damaged", { kept: path }));
  #inFlight = new Map(); // batch number → batch, ascending
  #lost = []; // batches that a thread which ended had
  #again = []; // spooled events that the broker refused
  #number = 0;
  #started = false;
  #closed = false;
  #hasLine = false;
  #spool;
  #recovered = { events: 0, bytes: 0 };
  #trouble = "";
  #refusals = new Set(); // said before; by family and reason, so they are few
  #tallies = new Map();
  #linger;
  #lingers = false;
  #flushes = new Waiters();
  #scope = new AsyncResource("audit-sdk"); // reports come in it, not in the first event's request

  /** `line` is a `Line` or the like; `now` gives milliseconds that never go back. */
  constructor({ line, makeSpool, metrics = {}, log = STDERR, bufferBytes, now = () => performance.now() }) {
    this.#line = line;
    this.#makeSpool = makeSpool;
    this.#tell = teller(metrics, log);
    this.#log = log;
    this.#bufferBytes = bufferBytes;
    this.#now = now;
  }

  /** family → Tally, of those that had an event. */
  get tallies() {
    return this.#tallies;
  }

  /** Events that the broker has not confirmed; those in the spool alone count as one a segment. */
  get pending() {
    const { held, backlog } = this.#outbox;
    return held + backlog + this.#again.length + this.#recovered.events;
  }

  /**
   * Take an event; undefined if it was dropped. `make(sequence)` gives `{key, body}`; the number is used up
   * only if the event is taken. Throws `NotAccepted`: the spool is full, or this is closed.
   */
  accept(family, make, delivery) {
    if (this.#closed) throw new NotAccepted("the audit client is closed");
    const tally = this.#tallies.get(family) ?? new Tally();
    const { key, body } = make(tally.accepted);
    this.#start();
    this.#tallies.set(family, tally);
    if (this.#isFull()) this.#pump();
    const full = this.#isFull();
    if (full && delivery === BEST_EFFORT) {
      tally.refused += 1;
      this.#tell("dropped", family, 1, "buffer_full");
      return undefined;
    }
    if (full && delivery === FAIL_CLOSED) {
      throw new NotAccepted(`${this.#bufferBytes} bytes wait for the broker (bufferBytes)`);
    }
    const item = new Item(family, tally.accepted, delivery, this.#now());
    const filled = delivery === SPOOL ? this.#append(item, key, body, full) : this.#outbox.add(item, key, body);
    tally.accepted += 1;
    if (filled) this.#pump(); // also where a burst lets no event loop turn
    else this.#schedule();
    this.#tell("accepted", family);
    return item;
  }

  /** Resolves with `eventId` once the broker has a `fail_closed` event, else rejects: `NotDelivered`. */
  confirmed(item, eventId, timeoutS) {
    return item.confirmed(eventId, timeoutS, () => this.#trouble);
  }

  /** Wait until the broker has everything that was accepted; how much it has not. */
  async flush(timeoutS) {
    this.#pump();
    this.#handOver(true);
    if (this.pending === 0) return 0;
    await this.#flushes.wait(timeoutS);
    return this.pending;
  }

  /** `flush` for a process whose event loop has ended: this thread stands still until then. */
  drain(timeoutS) {
    const endMs = this.#now() + 1_000 * timeoutS;
    for (;;) {
      this.#pump();
      this.#handOver(true);
      const leftMs = endMs - this.#now();
      if (this.pending === 0 || leftMs <= 0) return this.pending;
      this.#line.wait(leftMs);
    }
  }

  /**
   * Take nothing more. What is left: spooled events are sent by the next process, the others are dropped
   * and counted. Resolves when the sending thread has ended.
   */
  close() {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    clearTimeout(this.#linger);
    this.#drop(this.#lost, this.#inFlight.values(), this.#outbox.takeAll());
    this.#inFlight.clear();
    const ended = this.#started ? this.#line.close() : undefined;
    this.#spool?.close();
    this.#flushes.wake();
    return Promise.resolve(ended);
  }

  // --- accepting ---

  #start() {
    if (this.#started) return;
    this.#spool = this.#makeSpool?.();
    this.#openLine();
    this.#started = true;
  }

  #isFull() {
    return this.#outbox.heldBytes >= this.#bufferBytes;
  }

  #append(item, key, body, full) {
    item.spooled = this.#spool.append(item.family, key, body);
    if (!full && this.#outbox.backlog === 0) return this.#outbox.add(item, key, body);
    this.#outbox.defer(item.spooled);
    return false;
  }

  #drop(...groups) {
    let lost = 0;
    for (const item of groups.flatMap((batches) => [...batches]).flatMap(({ items }) => items)) {
      this.#outbox.remove(item);
      item.settled?.("the audit client is closed");
      if (item.spooled !== undefined) continue;
      lost += 1;
      this.#dropped(item, "closed");
    }
    if (lost) this.#log.error("audit_events_lost", { events: lost, why: this.#trouble });
  }

  #dropped(item, reason) {
    this.#tallies.get(item.family).drop(item.sequence);
    this.#tell("dropped", item.family, 1, reason);
  }

  // --- sending ---

  #openLine() {
    const pump = () => this.#pump();
    const lost = (why) => this.#lineLost(why);
    this.#scope.runInAsyncScope(() => this.#line.open(pump, lost));
    this.#hasLine = true;
  }

  #lineLost(why) {
    if (why !== this.#trouble) this.#log.error("audit_sending_failed", { why });
    this.#trouble = why;
    this.#hasLine = false;
    this.#lost.push(...this.#inFlight.values());
    this.#inFlight.clear();
    if (this.#spool !== undefined) this.#spool.heldBytes -= this.#recovered.bytes;
    this.#recovered = { events: 0, bytes: 0 }; // the next thread finds them again
    setTimeout(() => {
      if (this.#closed) return;
      this.#openLine();
      this.#handOver(true);
    }, RETRY_MS).unref();
  }

  /** One timer for all batches: to set one off again is cheaper than to make one. */
  #schedule() {
    if (this.#lingers || this.#inFlight.size >= WINDOW) return;
    this.#lingers = true;
    this.#linger ??= setTimeout(this.#lingered, LINGER_MS).unref();
    this.#linger.refresh();
  }

  #lingered = () => {
    this.#lingers = false;
    this.#handOver(true);
  };

  #handOver(now) {
    while (this.#hasLine && this.#inFlight.size < WINDOW) {
      const batch = this.#lost.shift() ?? this.#outbox.next(this.#spool, this.#readBack, { now });
      if (batch === undefined) return;
      this.#number += 1;
      this.#inFlight.set(this.#number, batch);
      this.#line.post(this.#number, batch.packed());
    }
  }

  #readBack = (family) => new Item(family, undefined, SPOOL, this.#now());

  /** Take in what the sending thread reports, and hand more over. */
  #pump() {
    if (!this.#started || this.#closed) return;
    for (let report = this.#line.take(); report !== undefined; report = this.#line.take()) {
      this.#reported(report);
    }
    this.#handOver(this.#inFlight.size === 0);
    if (this.#outbox.waits) this.#schedule();
    if (this.pending === 0) this.#flushes.wake();
  }

  #reported({ kind, ...facts }) {
    if (kind === "sent") this.#settle(facts);
    else if (kind === "waits") this.#say(facts.why);
    else if (kind === "found") this.#found(facts);
    else this.#resent(facts);
  }

  #settle({ number, refused }) {
    const batch = this.#inFlight.get(number);
    this.#inFlight.delete(number);
    if (refused === undefined) this.#trouble = "";
    const nowMs = this.#now();
    batch.items.forEach((item, place) => {
      const failure = refused?.get(place) ?? "";
      this.#outbox.remove(item);
      if (failure) this.#refused(item, failure);
      else this.#delivered(item, nowMs);
      item.settled?.(failure);
    });
  }

  #delivered(item, nowMs) {
    this.#tallies.get(item.family).delivered += 1;
    if (item.spooled !== undefined) this.#spool.delivered(item.spooled);
    this.#tell("delivered", item.family, (nowMs - item.acceptedAtMs) / 1_000);
  }

  #refused(item, failure) {
    const said = `${item.family}: ${failure}`;
    if (!this.#refusals.has(said)) this.#log.warn("audit_event_refused", { why: said });
    this.#refusals.add(said);
    if (item.delivery === SPOOL) {
      if (this.#again.length === 0) setTimeout(() => this.#sendAgain(), RETRY_MS).unref();
      this.#again.push(item.spooled);
    } else {
      this.#dropped(item, "refused");
    }
  }

  #sendAgain() {
    this.#outbox.deferAgain(this.#again);
    this.#again = [];
    this.#handOver(true);
  }

  #found({ events, bytes, damaged, skipped }) {
    this.#recovered = { events, bytes };
    this.#spool.heldBytes += bytes;
    if (events) this.#log.info("audit_spool_found", { events });
    for (const path of damaged) this.#log.error("audit_spool_damaged", { kept: path });
    for (const why of skipped) this.#log.error("audit_spool_skipped", { why });
  }

  #resent({ events, bytes }) {
    this.#recovered.events -= events;
    this.#recovered.bytes -= bytes;
    this.#spool.heldBytes -= bytes;
    this.#tell("resent", events);
  }

  /** Once for each different trouble; the events wait. */
  #say(why) {
    if (why && why !== this.#trouble) this.#log.warn("audit_delivery_waits", { why });
    this.#trouble = why;
  }
}
