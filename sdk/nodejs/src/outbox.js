// Accepted events that the broker has not confirmed: in memory, bounded, and in the spool.
import { Batch, BATCH_BYTES } from "./batch.js";
import { NotDelivered } from "./errors.js";

const ITEM_BYTES = 200; // of an event's entry beside its bytes, about

/** One accepted event on its way; its bytes are in its batch, or in the spool. */
export class Item {
  constructor(family, sequence, delivery, acceptedAtMs) {
    this.family = family;
    this.sequence = sequence; // of its topic; undefined: it was read back, and counted before
    this.delivery = delivery;
    this.acceptedAtMs = acceptedAtMs;
    this.weight = 0;
    this.spooled = undefined;
    this.settled = undefined; // fail_closed: called with "" or why not
  }

  /**
   * Resolves with `eventId` once the broker has the event, else rejects with `NotDelivered`. It holds the
   * process until then: somebody waits.
   */
  confirmed(eventId, timeoutS, whyNot) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.settled = undefined;
        reject(new NotDelivered(eventId, whyNot() || `no acknowledgement within ${timeoutS} s`));
      }, 1_000 * timeoutS);
      this.settled = (failure) => {
        clearTimeout(timer);
        if (failure) reject(new NotDelivered(eventId, failure));
        else resolve(eventId);
      };
    });
  }
}

/** The events by the order in which they go out: what is in memory, then what stands in the spool alone. */
export class Outbox {
  heldBytes = 0;
  held = 0; // events in memory, handed over or not
  #open = new Batch();
  #full = [];
  #spooled = 0; // of what is in memory and not handed over
  #backlog = []; // {segment, start, end}; end undefined: to the segment's
  #fromMemory = false;
  #onUnreadable;

  /** `onUnreadable(path)`: a segment of this process has no record where one was written. */
  constructor(onUnreadable) {
    this.#onUnreadable = onUnreadable;
  }

  get backlog() {
    return this.#backlog.length;
  }

  /** Events in memory that are not handed over. */
  get waits() {
    return this.#full.length > 0 || this.#open.items.length > 0;
  }

  /** Take an event into memory; whether that filled a batch. */
  add(item, key, body) {
    item.weight = key.length + body.length + ITEM_BYTES;
    this.held += 1;
    this.heldBytes += item.weight;
    if (item.spooled !== undefined) this.#spooled += 1;
    this.#open.add(item, key, body);
    if (!this.#open.isFull) return false;
    this.#full.push(this.#open);
    this.#open = new Batch();
    return true;
  }

  /** An event that is in the spool is read from there when its turn comes. */
  defer({ segment, start }) {
    const last = this.#backlog.at(-1);
    if (last === undefined || last.segment !== segment || last.end !== undefined) {
      this.#backlog.push({ segment, start, end: undefined });
    }
  }

  /** Events that are to be sent again, from the spool, before the rest of it. */
  deferAgain(spooled) {
    this.#backlog.unshift(...spooled);
  }

  /** The broker has it, or never will. */
  remove(item) {
    this.held -= 1;
    this.heldBytes -= item.weight;
  }

  /**
   * The next batch to hand over; undefined: none. `now`: also one that could still grow. What stands in
   * the spool alone comes after the spooled events in memory, and in turn with the others.
   */
  next(spool, makeItem, { now }) {
    const turn = this.#backlog.length > 0 && this.#spooled === 0 && (this.#fromMemory || !this.waits);
    this.#fromMemory = !turn;
    if (turn) return this.#fromSpool(spool, makeItem);
    let batch = this.#full.shift();
    if (batch === undefined && this.#open.items.length && (now || this.#backlog.length)) {
      batch = this.#open;
      this.#open = new Batch();
    }
    for (const item of batch?.items ?? []) if (item.spooled !== undefined) this.#spooled -= 1;
    return batch;
  }

  /** Every batch that was not handed over; there are none afterwards. */
  takeAll() {
    const all = [...this.#full, this.#open];
    this.#full = [];
    this.#open = new Batch();
    return all;
  }

  #fromSpool(spool, makeItem) {
    const { segment, start, end } = this.#backlog.shift();
    const batch = new Batch();
    let at = start;
    for (const record of this.#read(spool, segment, start, end ?? segment.size)) {
      if (batch.isFull) break;
      const item = makeItem(record.family);
      item.spooled = { segment, start: at, end: start + record.end };
      at = item.spooled.end;
      item.weight = record.key.length + record.body.length + ITEM_BYTES;
      this.held += 1;
      this.heldBytes += item.weight;
      batch.add(item, record.key, record.body);
    }
    if (batch.items.length === 0) {
      this.#onUnreadable(segment.path); // it stays for the next process, which keeps it aside
      return undefined;
    }
    if (at < (end ?? segment.size)) this.#backlog.unshift({ segment, start: at, end });
    return batch;
  }

  #read(spool, segment, start, end) {
    try {
      return spool.read(segment, start, end, BATCH_BYTES);
    } catch (error) {
      if (error.code === undefined) throw error;
      return []; // the disk's trouble is not the application's
    }
  }
}
