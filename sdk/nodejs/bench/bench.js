// What a call costs on the caller's thread, and how many events a process hands to the producer.
//
//     node sdk/nodejs/bench/bench.js [--events N] [--rate PER_S] [--json FILE]
//
// Needs the broker and registry that AUDIT_KAFKA_BOOTSTRAP and AUDIT_REGISTRY_URL name, and a tenant. Prints a
// table. Calls are timed in two kinds of service: a busy one, whose thread works on 4 MiB of its own between
// two calls, and an idle one, which sleeps. The yardstick is SHA-256 of 1 KiB, so that figures of two
// machines compare: as fast as it goes, and in the pauses of the timed calls, each after one of them. What
// its p99 has more there is the machine's doing (sleeping processors, other processes), in calls as well.
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as yielded, setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

import { Audit, encode } from "../src/index.js";

const ACTOR = { type: "user", tenant: "acme", id_type: "user_id", name: "Ada Moreau" };
const SOURCE = { ip: "192.0.2.17", user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:143.0)" };
const TIMED = 5_000;
const WORK = Buffer.alloc(4 * 1024 * 1024); // what a busy service has in its processor's caches
const PIECE = 16 * 1024;
const BLOCK = Buffer.alloc(1_024);
const BETWEEN = 1_000; // calls, until the event loop has its turn

const { values } = parseArgs({
  options: {
    events: { type: "string", default: "100000" },
    rate: { type: "string", default: "1000" },
    json: { type: "string" },
  },
});

function fields(number) {
  return {
    action: "record.read",
    operation: "read",
    actor: { ...ACTOR, id: `u-${String(number % 5_000).padStart(6, "0")}` },
    source: SOURCE,
    resources: [{ tenant: "acme", type: "record", id: `r-${number}` }],
  };
}

/** Single calls at a rate that leaves the machine room; between them the caller waits. Microseconds. */
async function timed(audit, rate, wait) {
  const took = [];
  const yardsticks = [];
  let due = performance.now();
  const clocked = (into, work) => {
    const at = process.hrtime.bigint();
    work();
    into.push(Number(process.hrtime.bigint() - at) / 1_000);
  };
  for (let number = 0; number < TIMED; number += 1) {
    await wait((due += 500 / rate));
    const event = fields(number);
    clocked(took, () => audit.dataAccess(event));
    await wait((due += 500 / rate));
    clocked(yardsticks, () => createHash("sha256").update(BLOCK).digest());
  }
  for (const times of [took, yardsticks]) times.sort((one, other) => one - other);
  return {
    call_p50_us: round(took[TIMED * 0.5]),
    call_p99_us: round(took[TIMED * 0.99]),
    yardstick_p50_us: round(yardsticks[TIMED * 0.5]),
    yardstick_p99_us: round(yardsticks[TIMED * 0.99]),
  };
}

async function beIdle(due) {
  const ms = due - performance.now();
  if (ms > 0) await sleep(ms);
}

let at = 0;

async function beBusy(due) {
  await yielded();
  while (performance.now() < due) {
    createHash("sha256").update(WORK.subarray(at, at + PIECE)).digest();
    at = (at + PIECE) % WORK.length;
  }
}

/** As fast as it goes: accepted and handed over, then on the broker; events a second. */
async function handedOver(audit, count) {
  const began = performance.now();
  for (let number = 0; number < count; number += 1) {
    audit.dataAccess(fields(number));
    if (number % BETWEEN === 0) await yielded();
  }
  const acceptedMs = performance.now() - began;
  const left = await audit.flush(120);
  const deliveredMs = performance.now() - began;
  return {
    accepted_per_s: Math.round((1_000 * count) / acceptedMs),
    delivered_per_s: Math.round((1_000 * (count - left)) / deliveredMs),
  };
}

function yardstickUs() {
  const began = performance.now();
  for (let number = 0; number < 50_000; number += 1) createHash("sha256").update(BLOCK).digest();
  return round((performance.now() - began) / 50);
}

function encodeUs() {
  const event = {
    ...fields(1),
    event_id: "01966f3e-7a10-7c3b-9d2e-5b7f0c1a2d39",
    occurred_at: 1_790_000_000_123_456,
    tenant: "acme",
    outcome: "success",
    producer: { service: "bench", instance: "bench-1", epoch: 1_790_000_000_000_000, sequence: 1 },
  };
  for (let number = 0; number < 20_000; number += 1) encode("data-access", event);
  const began = performance.now();
  for (let number = 0; number < 50_000; number += 1) encode("data-access", event);
  return round((performance.now() - began) / 50);
}

function round(value) {
  return Math.round(10 * value) / 10;
}

async function figuresOf(delivery) {
  const spoolDir = mkdtempSync(join(tmpdir(), "audit-bench-"));
  const audit = new Audit({
    service: "bench",
    tenant: "acme",
    spoolDir,
    delivery: { "data-access": delivery },
    bufferBytes: 512 * 1024 * 1024,
    spoolMaxBytes: 1024 * 1024 * 1024,
  });
  for (let number = 0; number < 5_000; number += 1) audit.dataAccess(fields(number));
  await audit.flush(30);
  const found = {
    busy: await timed(audit, Number(values.rate), beBusy),
    idle: await timed(audit, Number(values.rate), beIdle),
    ...(await handedOver(audit, Number(values.events))),
  };
  await audit.close();
  rmSync(spoolDir, { recursive: true });
  return found;
}

const figures = { yardstick_us: yardstickUs(), encode_us: encodeUs() };
for (const delivery of ["best_effort", "spool"]) figures[delivery] = await figuresOf(delivery);
for (const [name, found] of Object.entries(figures)) console.log(name.padEnd(12), JSON.stringify(found));
if (values.json) writeFileSync(values.json, `${JSON.stringify(figures, undefined, 1)}\n`);
