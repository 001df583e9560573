// Who produces, and what each event gets: ids, times, an epoch that grows at each start.
import { randomFillSync } from "node:crypto";
import { hostname } from "node:os";
import { threadId } from "node:worker_threads";

const HEX = Buffer.from("0123456789abcdef");
const text = Buffer.from("00000000-0000-0000-0000-000000000000");
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
  let end = put(0, high >>> 24, high >>> 16);
  end = put(end, high >>> 8, high) + 1;
  end = put(end, ms >>> 8, ms) + 1;
  end = put(end, 0x70 | (random[at] & 0x0f), random[at + 1]) + 1;
  end = put(end, 0x80 | (random[at + 2] & 0x3f), random[at + 3]) + 1;
  for (let more = 4; more < 10; more += 2) end = put(end, random[at + more], random[at + more + 1]);
  return text.latin1Slice(0, end);
}

/** The lowest eight bits of two numbers as hexadecimal digits; where the next ones go. */
function put(at, one, other) {
  text[at] = HEX[(one >>> 4) & 0xf];
  text[at + 1] = HEX[one & 0xf];
  text[at + 2] = HEX[(other >>> 4) & 0xf];
  text[at + 3] = HEX[other & 0xf];
  return at + 4;
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
