// Events of a page, to the trail's relay. For browsers alone: no dependency, nothing of Node.js.
//
// Events wait in a bounded queue and go in batches; each keeps its id (UUID version 7) over every retry, so
// that sending twice records once. An event leaves the queue when the relay has answered 202, or is given to
// `onDropped`. When the page is hidden or left, what is not confirmed goes by `navigator.sendBeacon` as well.

const EVENTS_MAX = 100; // of the relay's interface
const DEFAULTS = {
  flushIntervalMs: 2_000,
  batchEvents: 50,
  batchBytes: 60 * 1024, // browsers take 64 KB of beacons at once
  queueEvents: 1_000,
  retryFirstMs: 1_000,
  retryMaxMs: 60_000,
  requestTimeoutMs: 15_000,
  maxAgeMs: 10 * 60_000, // the relay refuses ids that are older than its window (15 minutes)
};
const RETRIED = new Set([401, 408, 425, 429, 500, 502, 503, 504]);
const encoder = new TextEncoder();

/** A client of the relay at `url`. See browser.d.ts. */
export function createRelay(options) {
  return new Relay(options);
}

class Relay {
  #options;
  #page;
  #queue = []; // {event, bytes, madeAt}
  #sending = null;
  #timer = null;
  #waitMs = 0;
  #token = null;
  #closed = false;
  #leave = () => this.#beacon();
  #look = () => (this.#page.document?.visibilityState === "hidden" ? this.#beacon() : this.#schedule(0));

  constructor({ page = globalThis, ...options }) {
    if (!options.url || !options.token) throw new TypeError("createRelay needs url and token");
    this.#options = { ...DEFAULTS, ...options };
    if (!(this.#options.batchEvents >= 1 && this.#options.batchEvents <= EVENTS_MAX)) {
      throw new RangeError(`batchEvents is 1 to ${EVENTS_MAX}`);
    }
    this.#page = page;
    page.addEventListener?.("pagehide", this.#leave);
    page.document?.addEventListener("visibilitychange", this.#look);
  }

  /** Events that the relay has not confirmed. */
  get pending() {
    return this.#queue.length;
  }

  /** Take an event; its id. It is sent within `flushIntervalMs`. */
  record(action, fields = {}) {
    const madeAt = this.#now();
    const event = {
      client_time: new Date(madeAt).toISOString(),
      ...fields,
      event_id: uuid7(madeAt, this.#page.crypto),
      action,
    };
    const entry = { event, bytes: sizeOf(event), madeAt };
    if (this.#closed) this.#drop([entry], "closed");
    else if (entry.bytes > this.#options.batchBytes) this.#drop([entry], "too_large");
    else if (this.#queue.length >= this.#options.queueEvents) this.#drop([entry], "queue_full");
    else {
      this.#queue.push(entry);
      const full = this.#queue.length >= this.#options.batchEvents && !this.#waitMs;
      this.#schedule(full ? 0 : this.#waitMs || this.#options.flushIntervalMs);
    }
    return event.event_id;
  }

  /** Send what waits, now; resolves when the relay has answered, or with events left if it cannot be reached. */
  async flush() {
    this.#stopTimer();
    this.#sending ??= this.#sendAll().finally(() => (this.#sending = null));
    await this.#sending;
    return this.pending;
  }

  /** Flush and take nothing more; how many events the relay has not confirmed. They went by beacon, too. */
  async close() {
    this.#closed = true;
    this.#page.removeEventListener?.("pagehide", this.#leave);
    this.#page.document?.removeEventListener("visibilitychange", this.#look);
    const left = await this.flush();
    if (left) this.#beacon();
    this.#stopTimer();
    return left;
  }

  async #sendAll() {
    this.#dropOld();
    while (this.#queue.length) {
      const batch = this.#piece(this.#queue);
      const again = await this.#send(batch);
      if (again !== null) {
        this.#waitMs = again;
        if (!this.#closed) this.#schedule(again);
        return;
      }
      this.#waitMs = 0;
    }
  }

  /** Null: go on with what is left; else so many milliseconds until the next try. */
  async #send(batch) {
    let answer;
    try {
      this.#token = await this.#freshToken();
      answer = await this.#fetch(JSON.stringify({ events: batch.map(({ event }) => event) }), {
        headers: { Authorization: `Bearer ${this.#token}`, "Content-Type": "application/json" },
      });
    } catch {
      return this.#backOff(null); // no network, no answer in time, or no token
    }
    if (answer.status === 202) {
      this.#remove(batch);
      return null;
    }
    if (RETRIED.has(answer.status)) return this.#backOff(answer);
    if (answer.status === 413 && batch.length > 1) {
      this.#options.batchEvents = Math.ceil(batch.length / 2);
      return null;
    }
    const problem = await answer.json().catch(() => null);
    const named = new Set((problem?.errors ?? []).map(({ path }) => Number(/^events\.(\d+)/.exec(path)?.[1])));
    const wrong = batch.filter((_, at) => named.has(at));
    this.#remove(wrong.length ? wrong : batch);
    this.#drop(wrong.length ? wrong : batch, "refused", problem);
    return null;
  }

  #fetch(body, more) {
    const { url, requestTimeoutMs } = this.#options;
    const signal = this.#page.AbortSignal?.timeout?.(requestTimeoutMs);
    return this.#page.fetch(url, { method: "POST", body, credentials: "omit", signal, ...more });
  }

  #backOff(answer) {
    const { retryFirstMs, retryMaxMs } = this.#options;
    const doubled = Math.min(Math.max(this.#waitMs * 2, retryFirstMs), retryMaxMs);
    const asked = Number(answer?.headers.get("Retry-After")) * 1_000 || 0;
    const wanted = Math.max(doubled, asked);
    // Many pages lose the same relay at once: they come back one after the other.
    return Math.min(wanted * (1 + this.#random() / 4), Math.max(retryMaxMs, asked));
  }

  /** The page may go: a beacon needs no answer, and what it brings twice is recorded once. */
  #beacon() {
    this.#dropOld();
    const token = this.#tokenNow();
    if (token === null) return;
    const rest = [...this.#queue];
    while (rest.length) {
      const piece = this.#piece(rest, encoder.encode(token).length + 40);
      rest.splice(0, piece.length);
      const body = JSON.stringify({ token, events: piece.map(({ event }) => event) });
      if (this.#sendBeacon(body)) continue;
      const headers = { "Content-Type": "text/plain;charset=UTF-8" };
      this.#fetch(body, { headers, keepalive: true }).catch(() => {});
    }
  }

  #sendBeacon(body) {
    try {
      return this.#page.navigator?.sendBeacon?.(this.#options.url, body) ?? false;
    } catch {
      return false;
    }
  }

  /** The first events that are one batch: by number, and by bytes. */
  #piece(entries, envelope = 40) {
    let bytes = envelope;
    let count = 0;
    for (const entry of entries) {
      bytes += entry.bytes + 1;
      if (count && (count === this.#options.batchEvents || bytes > this.#options.batchBytes)) break;
      count += 1;
    }
    return entries.slice(0, count);
  }

  async #freshToken() {
    const { token } = this.#options;
    const found = typeof token === "function" ? await token() : token;
    if (!found) throw new TypeError("no token");
    return found;
  }

  /** Without waiting: the token as it is now, or the last one that was used. */
  #tokenNow() {
    const { token } = this.#options;
    if (typeof token !== "function") return token;
    try {
      const found = token();
      if (typeof found === "string" && found) return found;
      found?.catch?.(() => {});
    } catch {
      // The application is on its way out as well.
    }
    return this.#token;
  }

  #remove(entries) {
    const gone = new Set(entries);
    this.#queue = this.#queue.filter((entry) => !gone.has(entry));
  }

  #dropOld() {
    const oldest = this.#now() - this.#options.maxAgeMs;
    const old = this.#queue.filter(({ madeAt }) => madeAt < oldest);
    this.#remove(old);
    if (old.length) this.#drop(old, "expired");
  }

  #drop(entries, reason, problem = null) {
    try {
      this.#options.onDropped?.({ events: entries.map(({ event }) => event), reason, problem });
    } catch (error) {
      this.#page.console?.error("audit: onDropped failed", error);
    }
  }

  #schedule(ms) {
    if (this.#timer !== null && ms > 0) return;
    this.#stopTimer();
    this.#timer = this.#page.setTimeout(() => {
      this.#timer = null;
      this.flush();
    }, ms);
  }

  #stopTimer() {
    if (this.#timer !== null) this.#page.clearTimeout(this.#timer);
    this.#timer = null;
  }

  #now() {
    return this.#page.Date.now();
  }

  #random() {
    return this.#page.Math.random();
  }
}

function sizeOf(event) {
  return encoder.encode(JSON.stringify(event)).length;
}

/** A version 7 UUID of a time in milliseconds. Source: RFC 9562 section 5.7. */
function uuid7(atMs, crypto) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let at = 0; at < 6; at += 1) bytes[at] = Math.floor(atMs / 2 ** (40 - 8 * at)) % 256;
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
