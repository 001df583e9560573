// Who produces, and what each event gets: ids, times, an epoch that grows at each start.
import { randomFillSync } from "node:crypto";
import { hostname } from "node:os";
import { threadId } from "node:worker_threads";

const HEX = Array.from({ length: 256 }, (_, octet) => octet.toString(16).padStart(2, "0"));
const AWRY_US = 2_000;
const random = Buffer.allocUnsafe(4_000);
let used = random.length;
let anchorUs = 0;
let lastEpoch = 0;

/**
 * Microseconds since 1970-01-01 UTC. `Date` counts milliseconds: what is between comes from the
 * monotonic clock, which is set anew when the two differ by more than two of them.
 */
export function nowUs() {
  const wallUs = Date.now() * 1_000;
  const sinceUs = performance.now() * 1_000;
  const us = Math.floor(anchorUs + sinceUs);
  if (us >= wallUs - AWRY_US && us <= wallUs + AWRY_US) return us;
  anchorUs = wallUs - sinceUs;
  return wallUs;
}

/** A version 7 UUID of a time in microseconds. Source: RFC 9562 §5.7. */
export function uuid7(atUs) {
  if (used === random.length) {
    randomFillSync(random);
    used = 0;
  }
  const at = used;
  used += 10;
  const ms = Math.floor(atUs / 1_000);
  const high = Math.floor(ms / 0x10000);
  return (
    HEX[(high >>> 24) & 0xff] + HEX[(high >>> 16) & 0xff] + HEX[(high >>> 8) & 0xff] + HEX[high & 0xff] +
    "-" + HEX[(ms >>> 8) & 0xff] + HEX[ms & 0xff] +
    "-" + HEX[0x70 | (random[at] & 0x0f)] + HEX[random[at + 1]] +
    "-" + HEX[0x80 | (random[at + 2] & 0x3f)] + HEX[random[at + 3]] +
    "-" + HEX[random[at + 4]] + HEX[random[at + 5]] + HEX[random[at + 6]] +
    HEX[random[at + 7]] + HEX[random[at + 8]] + HEX[random[at + 9]]
  );
}

/** One producing process, or one thread of it. Without a name of its own it is host and process id. */
export class Identity {
  constructor({ service, version, environment, instance }) {
    this.service = service;
    this.version = version;
    this.environment = environment;
    this.instance = instance ?? `${hostname()}-${process.pid}${threadId ? `-${threadId}` : ""}`;
    this.epoch = lastEpoch = Math.max(nowUs(), lastEpoch + 1);
  }

  /** The record `producer` of an event. */
  producer(sequence) {
    return {
      service: this.service,
      version: this.version,
      instance: this.instance,
      environment: this.environment,
      epoch: this.epoch,
      sequence,
    };
  }
}
