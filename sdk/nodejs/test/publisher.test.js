// Accepting and sending against a broker in this process: room, order, outages, sequences, the end.
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";

import { NotAccepted, NotDelivered } from "../src/errors.js";
import { Publisher } from "../src/publisher.js";
import { DeliveryClass } from "../src/settings.js";
import { Spool } from "../src/spool.js";
import { FakeLine, keptLog, until } from "../testing/support.js";

const FAMILY = "data-access";
const { BEST_EFFORT, SPOOL, FAIL_CLOSED } = DeliveryClass;
const KEY = Buffer.from("k");

/** A publisher on a broker of its own; what it counts, what it logs. */
function world(context, { bufferBytes = 1 << 20, spoolBytes = 1 << 20, line = new FakeLine(), folder } = {}) {
  const parent = folder ?? mkdtempSync(join(tmpdir(), "audit-spool-"));
  const counts = {};
  const count = (what) => (counts[what] = (counts[what] ?? 0) + 1);
  const log = keptLog();
  const publisher = new Publisher({
    line,
    makeSpool: () => new Spool(parent, `${Math.random()}`, { maxBytes: spoolBytes }),
    metrics: {
      accepted: () => count("accepted"),
      delivered: () => count("delivered"),
      dropped: (_family, _count, reason) => count(`dropped ${reason}`),
      resent: (events) => (counts.resent = events),
    },
    log,
    bufferBytes,
  });
  context.after(async () => {
    await publisher.close();
    rmSync(parent, { recursive: true, force: true });
  });
  return { publisher, line, counts, log, parent };
}

/** Events whose bodies are their numbers; the sequences that they got. */
function send(publisher, delivery, count, first = 0) {
  const got = [];
  for (let number = first; number < first + count; number += 1) {
    const item = publisher.accept(FAMILY, () => ({ key: KEY, body: Buffer.from(`${number}`) }), delivery);
    if (item !== undefined) got.push(item.sequence);
  }
  return got;
}

const range = (first, count) => Array.from({ length: count }, (_, place) => first + place);
const numbers = (line) => line.records.map(({ body }) => Number(body.toString()));
const dropped = (publisher) => publisher.tallies.get(FAMILY);

for (const delivery of [BEST_EFFORT, SPOOL]) {
  test(`events arrive in order with sequences without holes: ${delivery}`, async (context) => {
    const { publisher, line, counts } = world(context);

    assert.deepEqual(send(publisher, delivery, 3_000), range(0, 3_000));
    assert.equal(await publisher.flush(5), 0);
    assert.deepEqual(numbers(line), range(0, 3_000));
    assert.deepEqual(counts, { accepted: 3_000, delivered: 3_000 });
    assert.equal(dropped(publisher).delivered, 3_000);
  });
}

test("events go out by themselves, a few milliseconds later", async (context) => {
  const { publisher, line } = world(context);
  send(publisher, BEST_EFFORT, 3);

  await until(() => line.records.length === 3, 500);
  assert.equal(line.posted, 1);
});

test("a full buffer drops the newest and counts them", async (context) => {
  const { publisher, line, counts } = world(context, { bufferBytes: 2_000 });
  line.up = false;

  const got = send(publisher, BEST_EFFORT, 50);
  line.up = true;
  line.wait();
  assert.equal(await publisher.flush(5), 0);

  assert.deepEqual(got, range(0, got.length));
  assert.ok(got.length >= 5 && got.length < 50);
  assert.deepEqual(numbers(line), got);
  assert.deepEqual(dropped(publisher).ranges, []);
  assert.equal(dropped(publisher).refused, 50 - got.length);
  assert.equal(counts["dropped buffer_full"], 50 - got.length);
  assert.deepEqual(send(publisher, BEST_EFFORT, 1, 99), [got.length]);
});

test("a burst that lets no event loop turn is taken as far as the broker keeps up", async (context) => {
  const { publisher, line } = world(context, { bufferBytes: 200_000 });
  const { post } = line;
  line.post = function postNow(...words) {
    post.apply(this, words);
    this.work();
  };

  assert.equal(send(publisher, BEST_EFFORT, 5_000).length, 5_000);
  assert.equal(await publisher.flush(5), 0);
  assert.deepEqual(numbers(line), range(0, 5_000));
});

test("a spool takes more than memory and keeps the order", async (context) => {
  const { publisher, line } = world(context, { bufferBytes: 2_000 });
  line.up = false;

  send(publisher, SPOOL, 1_300);
  line.up = true;
  send(publisher, SPOOL, 300, 1_300);
  line.wait();

  assert.equal(await publisher.flush(10), 0);
  assert.deepEqual(numbers(line), range(0, 1_600));
  assert.equal(dropped(publisher).refused, 0);
});

test("what is spooled and what is not do not wait for each other", async (context) => {
  const { publisher, line } = world(context, { bufferBytes: 2_000 });
  line.up = false;
  send(publisher, SPOOL, 1_500);
  line.up = true;
  line.wait();
  const endMs = performance.now() + 5_000;
  for (let number = 0; publisher.pending > 20 || number < 50; number += 1) {
    assert.ok(performance.now() < endMs);
    send(publisher, BEST_EFFORT, 1, 10_000 + number);
    await new Promise(setImmediate);
  }
  assert.equal(await publisher.flush(5), 0);
  assert.deepEqual(numbers(line).filter((number) => number < 10_000), range(0, 1_500));
});

test("a spool that is full says so and uses no sequence up", async (context) => {
  const { publisher, line } = world(context, { spoolBytes: 1_000 });
  line.up = false;
  assert.throws(() => send(publisher, SPOOL, 1_000), (error) => {
    return error instanceof NotAccepted && /spoolMaxBytes/.test(error.message);
  });
  const taken = dropped(publisher).accepted;
  line.up = true;
  line.wait();
  assert.equal(await publisher.flush(5), 0);

  assert.deepEqual(send(publisher, SPOOL, 1, taken), [taken]);
});

test("a spool whose events are delivered is empty, and its folder goes", async (context) => {
  const { publisher, parent } = world(context);
  send(publisher, SPOOL, 100);
  assert.equal(await publisher.flush(5), 0);
  await publisher.close();

  assert.deepEqual(readdirSync(parent), []);
});

test("a spool that somebody deletes is an error in the log, and none of the application's", async (context) => {
  const { publisher, line, log, parent } = world(context, { bufferBytes: 2_000 });
  line.up = false;
  send(publisher, SPOOL, 50);
  rmSync(parent, { recursive: true });
  line.up = true;
  line.wait();

  assert.equal(await publisher.flush(5), 0);
  assert.deepEqual(log.lines.map(([name]) => name), ["audit_spool_damaged"]);
  assert.ok(line.records.length >= 5);
});

test("trouble is said once, and again when it is another one", async (context) => {
  const { publisher, line, log } = world(context);
  send(publisher, BEST_EFFORT, 1);
  for (const why of ["a", "a", "b", ""]) line.report({ kind: "waits", why });

  assert.deepEqual(log.lines.map(([name, { why }]) => [name, why]), [
    ["audit_delivery_waits", "a"],
    ["audit_delivery_waits", "b"],
  ]);
});

test("a refusal is a dropped range, or an error, or tried again", async (context) => {
  const { publisher, line, log } = world(context);
  line.refuses = () => "broker: TOPIC_AUTHORIZATION_FAILED";

  send(publisher, BEST_EFFORT, 3);
  assert.equal(await publisher.flush(5), 0);
  assert.deepEqual(dropped(publisher).ranges, [{ first: 0, last: 2 }]);

  const [item] = [publisher.accept(FAMILY, () => ({ key: KEY, body: KEY }), FAIL_CLOSED)];
  await assert.rejects(publisher.confirmed(item, "id-1", 5), (error) => {
    return error instanceof NotDelivered && /id-1.*TOPIC_AUTHORIZATION_FAILED/.test(error.message);
  });

  send(publisher, SPOOL, 2, 7);
  await until(() => line.posted === 3);
  assert.equal(publisher.pending, 2);
  line.refuses = () => "";
  assert.equal(await publisher.flush(5), 0);
  assert.deepEqual(numbers(line), [7, 8]);
  assert.equal(log.lines.length, 1);
});

test("fail_closed resolves when the broker has it and rejects in time when not", async (context) => {
  const { publisher, line } = world(context);
  const accept = () => publisher.accept(FAMILY, () => ({ key: KEY, body: KEY }), FAIL_CLOSED);
  assert.equal(await publisher.confirmed(accept(), "id", 5), "id");
  assert.equal(line.records.length, 1);

  line.up = false;
  const beganMs = performance.now();
  await assert.rejects(publisher.confirmed(accept(), "id", 0.1), /no acknowledgement within 0\.1 s/);
  assert.ok(performance.now() - beganMs < 1_000);
});

test("fail_closed is not taken where there is no room", async (context) => {
  const { publisher, line } = world(context, { bufferBytes: 1_000 });
  line.up = false;
  assert.throws(() => send(publisher, FAIL_CLOSED, 50), /bufferBytes/);
});

test("an invalid event uses no sequence up", (context) => {
  const { publisher } = world(context);
  const invalid = () => {
    throw new RangeError("invalid");
  };

  send(publisher, BEST_EFFORT, 1);
  assert.throws(() => publisher.accept(FAMILY, invalid, BEST_EFFORT), /invalid/);
  assert.deepEqual(send(publisher, BEST_EFFORT, 1, 1), [1]);
});

test("a sending thread that ended is replaced and nothing is lost", async (context) => {
  const { publisher, line, log } = world(context);
  line.up = false;
  send(publisher, BEST_EFFORT, 1_200);
  await new Promise(setImmediate);
  line.fail();
  line.up = true;
  send(publisher, BEST_EFFORT, 10, 1_200);

  assert.equal(await publisher.flush(5), 0);
  assert.equal(line.opened, 2);
  assert.deepEqual(numbers(line), range(0, 1_210));
  assert.deepEqual(log.lines, [["audit_sending_failed", { why: "Error TEST" }]]);
});

test("draining needs no event loop", (context) => {
  const { publisher, line } = world(context);
  send(publisher, BEST_EFFORT, 2_000);

  assert.equal(publisher.drain(5), 0);
  assert.deepEqual(numbers(line), range(0, 2_000));
});

test("draining ends when its time is over", (context) => {
  const { publisher, line } = world(context);
  line.up = false;
  send(publisher, BEST_EFFORT, 5);

  const beganMs = performance.now();
  assert.equal(publisher.drain(0.1), 5);
  assert.ok(performance.now() - beganMs < 1_000);
});

test("closing counts what is lost and nothing is taken after", async (context) => {
  const { publisher, line, log } = world(context);
  line.up = false;
  send(publisher, BEST_EFFORT, 1_005);

  assert.equal(await publisher.flush(0.05), 1_005);
  await publisher.close();
  assert.deepEqual(dropped(publisher).ranges, [{ first: 0, last: 1_004 }]);
  assert.equal(log.lines.at(-1)[0], "audit_events_lost");
  assert.equal(log.lines.at(-1)[1].events, 1_005);
  assert.throws(() => send(publisher, BEST_EFFORT, 1), NotAccepted);
});

test("a hook that throws stops no event", async (context) => {
  const line = new FakeLine();
  const log = keptLog();
  const broken = () => {
    throw new TypeError("hook");
  };
  const metrics = { accepted: broken, delivered: broken };
  const publisher = new Publisher({ line, metrics, log, bufferBytes: 1 << 20 });
  context.after(() => publisher.close());

  send(publisher, BEST_EFFORT, 5);

  assert.equal(await publisher.flush(5), 0);
  assert.deepEqual(numbers(line), range(0, 5));
  assert.equal(log.lines[0][0], "audit_metrics_hook_failed");
});
