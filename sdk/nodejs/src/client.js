// `Audit`: one call per event family.
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { encode } from "./codec.js";
import { current, merged } from "./context.js";
import { families } from "./contract.js";
import { Heartbeats } from "./heartbeat.js";
import { STDERR } from "./hooks.js";
import { Identity, nowUs, uuid7 } from "./identity.js";
import { Line } from "./line.js";
import { rawKey } from "./partition.js";
import { unwatch, watch } from "./process.js";
import { Publisher } from "./publisher.js";
import { classOf, DeliveryClass, settingsFrom, SYSTEM } from "./settings.js";
import { Spool } from "./spool.js";

/**
 * Publishes audit events. One per process is enough; nothing connects before the first event.
 *
 * A call builds the event (id, time, producer, request context), holds it to its family's contract and
 * takes it for delivery before it returns: an event that is invalid or not accepted throws at once, awaited
 * or not. The promise that it returns has the event's id. For `best_effort` and `spool` it is resolved
 * and never rejects; for `fail_closed` it resolves when the broker has the event, else rejects.
 */
export class Audit {
  #settings;
  #classes;
  #identity;
  #publisher;
  #heartbeats;
  #closing;

  /**
   * Options are the settings (settings.js), `metrics` and `log`. `makeLine` makes what carries batches to
   * the broker (`Line`). Throws `AuditConfigurationError` for a setting that does not fit.
   */
  constructor({ metrics, log = STDERR, ...options } = {}, makeLine = (parts) => new Line(parts)) {
    const settings = settingsFrom(options);
    this.#settings = settings;
    this.#classes = new Map([...families.keys()].map((name) => [name, classOf(settings, name)]));
    this.#identity = new Identity(settings);
    const spools = settings.spoolDir !== undefined;
    const name = `${this.#identity.epoch}-${process.pid}`;
    const { spoolMaxBytes: maxBytes } = settings;
    this.#publisher = new Publisher({
      line: makeLine(partsOf(settings, spools ? join(settings.spoolDir, name) : undefined)),
      makeSpool: spools ? () => new Spool(settings.spoolDir, name, { maxBytes }) : undefined,
      metrics,
      log,
      bufferBytes: settings.bufferBytes,
    });
    this.#heartbeats = new Heartbeats({
      publisher: this.#publisher,
      identity: this.#identity,
      tenant: settings.heartbeatTenant ?? settings.tenant,
      intervalS: settings.heartbeatS,
      log,
    });
    watch(this);
  }

  /** An authentication: `action` is session.start and `operation` logon unless given. */
  login(fields) {
    return this.emit("authentication", { action: "session.start", ...fields });
  }

  /** Data that was read, searched, exported or shared. */
  dataAccess(fields) {
    return this.emit("data-access", fields);
  }

  /** What a service holds about a person changed: `changes`, and whose it is: `targets`. */
  profileUpdate(fields) {
    return this.emit("profile-update", { action: "profile.update", ...fields });
  }

  /** Something that takes administrative rights. */
  adminAction(fields) {
    return this.emit("admin-action", fields);
  }

  /** A control changed: a role, a credential, a factor, a policy, a key. */
  securityChange(fields) {
    return this.emit("security-change", fields);
  }

  /**
   * Publish an event of any family; its id. What the fields leave out comes from the request context,
   * then from here: `event_id`, `occurred_at` (microseconds, or a `Date`), `tenant`, `outcome`, `producer`.
   *
   * Throws `InvalidEvent` (it breaks the contract; nothing was sent) and `NotAccepted` (spool full, client
   * closed). Rejects with `NotDelivered`: `fail_closed` only, not confirmed in time.
   */
  emit(family, fields) {
    const event = this.#event(family, fields);
    const make = (sequence) => {
      event.producer = this.#identity.producer(sequence);
      const body = encode(family, event);
      return { key: rawKey(event), body };
    };
    const delivery = this.#classes.get(family);
    const item = this.#publisher.accept(family, make, delivery);
    this.#heartbeats.begin();
    const id = event.event_id;
    if (item === undefined || delivery !== DeliveryClass.FAIL_CLOSED) return Promise.resolve(id);
    return this.#publisher.confirmed(item, id, this.#settings.failClosedTimeoutS);
  }

  /**
   * Throws `InvalidEvent` if an event as `emit` would publish it here and now breaks its contract, with the
   * longest sequence number as well. Sends nothing, and says nothing of spool, memory or broker.
   */
  check(family, fields) {
    const event = this.#event(family, fields);
    event.producer = this.#identity.producer(Number.MAX_SAFE_INTEGER);
    encode(family, event);
  }

  /** Wait until the broker has what was accepted; how many events it has not. */
  flush(timeoutS = 10) {
    return this.#publisher.flush(timeoutS);
  }

  /**
   * Flush and end; how many events the broker has not. Spooled ones go out with the next process. At
   * exit, on SIGTERM and on SIGINT it is done anyway.
   */
  close(timeoutS = this.#settings.closeTimeoutS) {
    this.#closing ??= this.#close(timeoutS);
    return this.#closing;
  }

  [Symbol.asyncDispose]() {
    return this.close();
  }

  /** `close` where no event loop goes on: this thread stands still, `closeTimeoutS` at most. */
  drainAndClose() {
    unwatch(this);
    const endMs = performance.now() + 1_000 * this.#settings.closeTimeoutS;
    const leftS = () => Math.max(endMs - performance.now(), 0) / 1_000;
    this.#publisher.drain(leftS());
    this.#heartbeats.end();
    const left = this.#publisher.drain(leftS());
    this.#publisher.close();
    return left;
  }

  /** By topic, of those with such events: what will not arrive: `{ranges: [{first, last}], refused}`. */
  get dropped() {
    const found = {};
    for (const [family, { ranges, refused }] of this.#publisher.tallies) {
      if (ranges.length || refused) found[families.get(family).topic] = { ranges: [...ranges], refused };
    }
    return found;
  }

  /** Events that the broker has not confirmed yet. */
  get pending() {
    return this.#publisher.pending;
  }

  async #close(timeoutS) {
    const endMs = performance.now() + 1_000 * timeoutS;
    const leftS = () => Math.max(endMs - performance.now(), 0) / 1_000;
    await this.#publisher.flush(leftS());
    this.#heartbeats.end();
    const left = await this.#publisher.flush(leftS());
    unwatch(this);
    await this.#publisher.close();
    return left;
  }

  #event(family, fields) {
    if (family === SYSTEM) throw new RangeError("the family system is the SDK's own");
    const event = merged(current(), fields);
    let at = event.occurred_at;
    if (at === undefined) event.occurred_at = at = nowUs();
    else if (at instanceof Date) event.occurred_at = at = 1_000 * at.getTime();
    event.event_id ??= uuid7(Number.isSafeInteger(at) && at >= 0 ? at : nowUs());
    event.outcome ??= "success";
    event.tenant ??= this.#settings.tenant;
    return event;
  }
}

/** What the sending thread is made of (worker.js). */
function partsOf(settings, folder) {
  const timeoutS = settings.requestTimeoutS;
  const { registryUrl: url, registryUsername: username, registryPassword: password } = settings;
  const ca = settings.registryCaFile && readFileSync(settings.registryCaFile, "utf8");
  return {
    folder,
    registry: { url, username, password, ca, timeoutS },
    kafka: {
      bootstrap: settings.bootstrap,
      clientId: `audit-sdk-${settings.service}`,
      timeoutS,
      options: settings.kafka,
    },
  };
}
