// Batches against a producer that fails in every way: none is lost, none is taken for another.
import assert from "node:assert/strict";
import test from "node:test";

import { families } from "../src/contract.js";
import { AuditConfigurationError } from "../src/errors.js";
import { BrokerUnavailable, Refused } from "../src/kafka.js";
import { RegistryUnavailable } from "../src/registry.js";
import { Sender } from "../src/sender.js";

const KEY = Buffer.from("acme/u-1");

/** Producers whose `send` does what `plan` says, call by call; then it succeeds. */
function world(plan = [], ids = { ask: async () => 7 }) {
  const seen = { calls: [], producers: 0, closed: 0, troubles: [], slept: 0, atOnce: 0 };
  const makeProducer = () => {
    seen.producers += 1;
    const number = seen.producers;
    let isClosed = false;
    return {
      async send(records) {
        assert.ok(!isClosed, "a producer that failed is used again");
        assert.equal(seen.atOnce, 0, "two sends at once");
        seen.atOnce += 1;
        await new Promise(setImmediate);
        seen.atOnce -= 1;
        seen.calls.push({ number, bodies: records.map(({ value }) => value.subarray(5).toString()) });
        const fails = plan.shift();
        const error = typeof fails === "function" ? fails(records) : fails;
        if (error) throw error;
      },
      close() {
        isClosed = true;
        seen.closed += 1;
      },
    };
  };
  const onTrouble = (why) => seen.troubles.push(why);
  const sleep = async () => (seen.slept += 1);
  const now = () => 1_000 * seen.slept;
  return { sender: new Sender({ makeProducer, ids, onTrouble, sleep, now }), seen };
}

const records = (bodies, family = "data-access") => bodies.map((body) => ({ family, key: KEY, body: Buffer.from(body) }));
const away = () => new BrokerUnavailable("broker: ECONNREFUSED");

test("a record has its topic, its key and its schema's id", async () => {
  let sent;
  const { sender } = world([(given) => void (sent = given)]);
  await sender.send(records(["a"]));

  assert.equal(sent[0].topic, families.get("data-access").topic);
  assert.deepEqual(sent[0].key, KEY);
  assert.equal(sent[0].value.toString("hex"), "0000000007" + "61");
});

test("the same records are sent again by another producer until they are there", async () => {
  const { sender, seen } = world([away(), away()]);
  const refused = await sender.send(records(["a", "b"]));

  assert.equal(refused.size, 0);
  assert.deepEqual(seen.calls, [1, 2, 3].map((number) => ({ number, bodies: ["a", "b"] })));
  assert.equal(seen.closed, 2);
  assert.equal(seen.slept, 2);
  assert.deepEqual(seen.troubles, ["broker: ECONNREFUSED", "broker: ECONNREFUSED", ""]);
});

test("a producer that works is kept", async () => {
  const { sender, seen } = world();
  for (const body of ["a", "b", "c"]) await sender.send(records([body]));

  assert.equal(seen.producers, 1);
});

test("one topic's refusal is not another's", async () => {
  const refuses = (given) =>
    given.some(({ topic }) => topic === "audit.raw.data-access") && new Refused("TOPIC_AUTHORIZATION_FAILED");
  const { sender, seen } = world([refuses, refuses, refuses]);
  const refused = await sender.send([...records(["a", "b"]), ...records(["c"], "authentication"), ...records(["d"])]);

  assert.deepEqual([...refused], [0, 1, 3].map((place) => [place, "broker: TOPIC_AUTHORIZATION_FAILED"]));
  assert.deepEqual(seen.calls.map(({ bodies }) => bodies.join("")), ["abcd", "abd", "c"]);
});

test("what is too large together is sent in halves", async () => {
  const most = (given) => given.length > 2 && new Refused("MESSAGE_TOO_LARGE");
  const { sender, seen } = world([most, most, most, most, most, most]);
  const refused = await sender.send(records(["a", "b", "c", "d", "e"]));

  assert.equal(refused.size, 0);
  assert.deepEqual(seen.calls.map(({ bodies }) => bodies.join("")), ["abcde", "abc", "ab", "c", "de"]);
});

test("one record that is too large is refused alone", async () => {
  const large = (given) => given.some(({ value }) => value.length > 8) && new Refused("MESSAGE_TOO_LARGE");
  const { sender } = world(Array(9).fill(large));
  const refused = await sender.send(records(["a", "large", "c"]));

  assert.deepEqual([...refused], [[1, "broker: MESSAGE_TOO_LARGE"]]);
});

test("a topic that is unknown is waited for, for a time and once", async () => {
  const unknown = () => new Refused("UNKNOWN_TOPIC_OR_PARTITION");
  const known = world([unknown, unknown]);
  assert.equal((await known.sender.send(records(["a"]))).size, 0);
  assert.equal(known.seen.slept, 2);

  const { sender, seen } = world(Array(99).fill(unknown));
  assert.equal((await sender.send(records(["a"]))).size, 1);
  assert.equal(seen.slept, 30);
  assert.equal((await sender.send(records(["b"]))).size, 1);
  assert.equal(seen.slept, 30);
});

test("an outage amid a refusal sends only what is left", async () => {
  const refusal = new Refused("TOPIC_AUTHORIZATION_FAILED");
  const { sender, seen } = world([refusal, undefined, away(), undefined]);
  const refused = await sender.send([...records(["a"]), ...records(["b"], "authentication")]);

  assert.equal(refused.size, 0);
  assert.deepEqual(seen.calls.map(({ bodies }) => bodies.join("")), ["ab", "a", "b", "b"]);
});

test("a registry that is away is waited for", async () => {
  let asked = 0;
  const ask = async () => {
    asked += 1;
    if (asked < 3) throw new RegistryUnavailable("registry: ECONNREFUSED");
    return 7;
  };
  const { sender, seen } = world([], { ask });
  await sender.send(records(["a"]));

  assert.deepEqual(seen.troubles, ["registry: ECONNREFUSED", "registry: ECONNREFUSED", ""]);
  assert.deepEqual(seen.calls, [{ number: 1, bodies: ["a"] }]);
});

test("heartbeats whose schema is not registered hold nothing up", async () => {
  const ask = async (family) => {
    if (family === "system") throw new AuditConfigurationError("the schema of system is not registered");
    return 7;
  };
  const { sender, seen } = world([], { ask });
  const refused = await sender.send([...records(["h"], "system"), ...records(["a"])]);

  assert.deepEqual([...refused], [[0, "the schema of system is not registered"]]);
  assert.deepEqual(seen.calls, [{ number: 1, bodies: ["a"] }]);
});

test("a mistake of ours is not taken for an outage", async () => {
  const { sender } = world([new TypeError("ours")]);
  await assert.rejects(sender.send(records(["a"])), TypeError);
});
