// The call: what an event gets by itself, what a request adds, and what is refused before sending.
import assert from "node:assert/strict";
import test from "node:test";

import {
  Audit,
  AuditConfigurationError,
  auditContext,
  families,
  InvalidEvent,
  limits,
  NotAccepted,
  setContext,
} from "../src/index.js";
import { Identity, nowUs, uuid7 } from "../src/identity.js";
import { classOf, settingsFrom } from "../src/settings.js";
import { Tally } from "../src/tally.js";
import { decode, FakeLine, keptLog } from "../testing/support.js";

const ACTOR = { type: "user", tenant: "acme", id_type: "user_id", id: "u-1" };
const RECORD = { tenant: "acme", type: "record", id: "r-1" };
const READ = { action: "record.read", operation: "read", actor: ACTOR, resources: [RECORD] };
const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** A client on a broker in this process; `events()` is what came there. */
function recorded(context, options = {}) {
  const line = options.line ?? new FakeLine();
  const given = { service: "records", tenant: "acme", log: keptLog(), heartbeatS: 0, ...options };
  delete given.line;
  const audit = new Audit(given, () => line);
  context.after(() => audit.close(0.1));
  const events = async () => {
    assert.equal(await audit.flush(5), 0);
    return line.records.map(({ family, body }) => ({ family, ...decode(family, body) }));
  };
  return { audit, line, events };
}

test("an event gets what the call leaves out", async (context) => {
  const { audit, events } = recorded(context, { version: "1.2", environment: "test", instance: "records-0" });
  const beforeUs = 1_000 * Date.now() - 2_000;
  const id = await audit.dataAccess(READ);
  const [event] = await events();

  assert.equal(event.event_id, id);
  assert.match(id, ID);
  assert.ok(event.occurred_at >= beforeUs && event.occurred_at <= 1_000 * Date.now() + 3_000);
  assert.deepEqual([event.tenant, event.outcome], ["acme", "success"]);
  const { epoch, ...producer } = event.producer;
  assert.ok(epoch > 1_700_000_000_000_000);
  const names = { service: "records", version: "1.2", instance: "records-0", environment: "test" };
  assert.deepEqual(producer, { ...names, sequence: 0 });
});

test("there is a call for each family", async (context) => {
  const { audit, events } = recorded(context);
  audit.login({ actor: ACTOR, outcome: "failure", failure_code: "invalid_password" });
  audit.dataAccess(READ);
  audit.profileUpdate({ self_service: true, actor: ACTOR, changes: [{ path: "phone" }] });
  audit.adminAction({ action: "project.delete", operation: "delete", actor: ACTOR, resources: [RECORD] });
  audit.securityChange({ action: "role.grant", change_kind: "role", actor: ACTOR, resources: [RECORD] });

  const named = (await events()).map(({ family }) => family);
  assert.deepEqual(named, [...families.keys()].filter((family) => family !== "system"));
});

test("sequences count by topic and an invalid event takes none", async (context) => {
  const { audit, events } = recorded(context);
  for (let round = 0; round < 2; round += 1) {
    audit.login({ actor: ACTOR });
    assert.throws(() => audit.dataAccess({ ...READ, resources: [] }), InvalidEvent);
    audit.dataAccess(READ);
  }

  assert.deepEqual((await events()).map(({ producer }) => producer.sequence), [0, 0, 1, 1]);
});

test("a time may be a Date and an id the caller's", async (context) => {
  const { audit, events } = recorded(context);
  const at = new Date("2026-03-01T12:00:00.123Z");
  const given = "01966f3e-7a10-7c3b-9d2e-5b7f0c1a2d39";
  assert.equal(await audit.login({ actor: ACTOR, occurred_at: at, event_id: given }), given);
  audit.login({ actor: ACTOR, occurred_at: BigInt(at.getTime()) * 1_000n });

  const [first, second] = await events();
  assert.equal(first.occurred_at, 1_000 * at.getTime());
  assert.equal(second.occurred_at, first.occurred_at);
});

test("what is missing is thrown at once, before anything is sent", async (context) => {
  const { audit, events } = recorded(context);
  assert.throws(
    () => audit.login({ actor: { type: "user" }, tenant: "" }),
    ({ problems }) => {
      const found = problems.map(({ path, rule }) => `${path} ${rule}`);
      assert.deepEqual(found, ["tenant empty", "actor.tenant required", "actor.id_type required"]);
      return true;
    },
  );
  assert.throws(() => audit.emit("login", {}), /no event family/);
  assert.throws(() => audit.emit("system", {}), /the SDK's own/);
  assert.deepEqual(await events(), []);
});

test("what is checked is judged as it would be emitted, and nothing is sent", async (context) => {
  const { audit, line, events } = recorded(context);
  audit.check("data-access", READ);
  assert.throws(() => audit.check("data-access", { ...READ, resources: [] }), InvalidEvent);
  assert.throws(() => audit.check("authentication", { action: "session.start" }), /actor: is missing/);
  auditContext({ actor: ACTOR }, () => audit.check("authentication", { action: "session.start" }));
  assert.throws(() => audit.check("login", {}), /no event family/);
  assert.throws(() => audit.check("system", {}), /the SDK's own/);

  assert.deepEqual([await events(), line.opened, audit.pending], [[], 0, 0]);
});

/** A large event, and so many bytes more: up to 8,000. */
function sized(more) {
  const large = Array.from({ length: 29 }, () => ({ ...RECORD, name: "é".repeat(500), path: "é".repeat(500) }));
  const rest = Array.from({ length: 20 }, (_, place) => {
    const part = Math.min(Math.max(more - 400 * place, 0), 400);
    return { ...RECORD, name: "x".repeat(100 + part) };
  });
  return { ...READ, resources: [...large, ...rest] };
}

test("what is checked fits with the longest sequence number", async (context) => {
  const { audit, line } = recorded(context);
  audit.dataAccess(sized(0));
  await audit.flush(5);
  const room = limits.event_bytes - line.records[0].body.length;

  audit.dataAccess(sized(room)); // its number takes one byte
  assert.throws(() => audit.check("data-access", sized(room)), /event_bytes/);
  audit.check("data-access", sized(room - 7)); // and the largest eight
  assert.throws(() => audit.check("data-access", sized(room - 6)), /event_bytes/);
});

test("a context is seen by what runs in it and by nothing else", async (context) => {
  const { audit, events } = recorded(context);
  const outside = new Promise((resolve) => setTimeout(resolve, 20)).then(() => {
    assert.throws(() => audit.login({}), /actor: is missing/);
  });
  await auditContext({ actor: ACTOR, source: { ip: "192.0.2.1" } }, async () => {
    await auditContext({ source: { port: 7 }, session: { id: "s" } }, async () => {
      await new Promise(setImmediate);
      audit.login({});
    });
    audit.login({ source: { ip: "192.0.2.9" } });
    await outside;
  });
  assert.throws(() => audit.login({}), /actor: is missing/);
  assert.throws(() => setContext({ actor: ACTOR }), /no audit context/);

  const [inner, outer] = await events();
  assert.deepEqual([inner.source.ip, inner.source.port], ["192.0.2.1", 7]);
  assert.equal(inner.session.id, "s");
  assert.deepEqual([outer.source.ip, outer.session], ["192.0.2.9", null]);
});

test("heartbeats say what was accepted, delivered and dropped", async (context) => {
  const line = new FakeLine();
  const { audit, events } = recorded(context, { line, heartbeatS: 0.05, heartbeatTenant: "ops" });
  line.refuses = ({ family }) => (family === "data-access" ? "broker: POLICY_VIOLATION" : "");
  for (let number = 0; number < 3; number += 1) audit.dataAccess(READ);
  for (let number = 0; number < 2; number += 1) audit.login({ actor: ACTOR });
  assert.equal(await audit.flush(5), 0);
  await new Promise((resolve) => setTimeout(resolve, 120));
  assert.equal(await audit.close(), 0);

  const beats = line.records.filter(({ family }) => family === "system").map(({ body }) => decode("system", body));
  assert.ok(beats.length >= 3);
  const [first, last] = [beats[0], beats.at(-1)];
  assert.deepEqual([first.action, first.operation, first.tenant], ["producer.heartbeat", "heartbeat", "ops"]);
  assert.deepEqual([first.actor.type, first.actor.id_type, first.actor.id], ["system", "unknown", null]);
  assert.deepEqual(beats.map(({ producer }) => producer.sequence), beats.map((_, place) => place));
  assert.deepEqual(beats.map(({ heartbeat }) => heartbeat.final), beats.map((beat) => beat === last));
  const counted = { topic: "audit.raw.data-access", accepted: 1, delivered: 0, refused: 0, dropped: [] };
  assert.deepEqual(first.topics, [counted]);
  assert.deepEqual(last.topics, [
    { ...counted, accepted: 3, dropped: ["0-2"] },
    { topic: "audit.raw.authentication", accepted: 2, delivered: 2, refused: 0, dropped: [] },
  ]);
  assert.equal(last.heartbeat.interval_s, 1);
  assert.equal((await events()).filter(({ family }) => family !== "system").length, 2);
});

test("ranges hold each sequence in whatever order they come", () => {
  const tally = new Tally();
  for (const sequence of [5, 3, 9, 4, 10, 7, 3, 8, 1]) tally.drop(sequence);

  assert.deepEqual(tally.ranges, [{ first: 1, last: 1 }, { first: 3, last: 5 }, { first: 7, last: 10 }]);
});

test("of many dropped ranges the oldest become one", () => {
  const tally = new Tally();
  for (let sequence = 0; sequence < 200; sequence += 2) tally.drop(sequence);

  assert.equal(tally.ranges.length, limits.items);
  assert.deepEqual(tally.ranges[0], { first: 0, last: 200 - 2 * limits.items });
  assert.deepEqual(tally.ranges.at(-1), { first: 198, last: 198 });
});

test("a heartbeat that cannot be sent stops no event", async (context) => {
  const log = keptLog();
  const { audit, events } = recorded(context, { heartbeatS: 60, heartbeatTenant: " ".repeat(600), log });
  audit.login({ actor: ACTOR });

  assert.equal((await events()).length, 1);
  assert.deepEqual(log.lines.map(([name]) => name), ["audit_heartbeat_not_sent"]);
});

test("without a tenant or an event there is no heartbeat", async (context) => {
  const silent = recorded(context, { heartbeatS: 60 });
  await silent.audit.close();
  assert.deepEqual(silent.line.records, []);

  const nameless = recorded(context, { heartbeatS: 60, tenant: undefined });
  nameless.audit.login({ actor: ACTOR, tenant: "acme" });
  assert.equal((await nameless.events()).length, 1);
});

test("fail_closed resolves with the id when the broker has it, else rejects", async (context) => {
  const line = new FakeLine();
  const delivery = { authentication: "fail_closed" };
  const { audit, events } = recorded(context, { line, delivery, failClosedTimeoutS: 0.1 });
  const id = await audit.login({ actor: ACTOR });
  assert.deepEqual((await events()).map(({ event_id: one }) => one), [id]);

  line.up = false;
  await assert.rejects(audit.login({ actor: ACTOR }), { name: "NotDelivered" });
});

test("best effort never rejects, and what is lost is counted", async (context) => {
  const line = new FakeLine();
  line.up = false;
  const { audit } = recorded(context, { line, bufferBytes: 2_000 });
  const ids = await Promise.all(Array.from({ length: 50 }, () => audit.login({ actor: ACTOR })));

  assert.equal(new Set(ids).size, 50);
  assert.ok(await audit.close(0.02));
  const { ranges, refused } = audit.dropped["audit.raw.authentication"];
  assert.equal(ranges[0].last - ranges[0].first + 1 + refused, 50);
  assert.throws(() => audit.login({ actor: ACTOR }), NotAccepted);
});

test("ids are version 7 in the order of time", () => {
  const ids = Array.from({ length: 500 }, (_, ms) => uuid7(1_000 * (1_790_000_000_000 + ms)));

  assert.deepEqual(ids, [...ids].sort());
  assert.equal(new Set(ids).size, 500);
  for (const id of ids) assert.match(id, ID);
  assert.equal(parseInt(ids[0].slice(0, 13).replace("-", ""), 16), 1_790_000_000_000);
});

test("time has microseconds and goes with the clock", () => {
  const times = Array.from({ length: 1_000 }, nowUs);

  assert.ok(times.every((us) => Number.isInteger(us) && Math.abs(us - 1_000 * Date.now()) < 1e6));
  assert.ok(new Set(times.map((us) => us % 1_000)).size > 5);
});

test("each client has an epoch of its own, greater than those before", () => {
  const epochs = Array.from({ length: 100 }, () => new Identity({ service: "x" }).epoch);

  assert.deepEqual(epochs, [...new Set(epochs)].sort());
});

test("settings that do not fit are named", () => {
  const cases = [
    [{ service: "" }, /AUDIT_SERVICE/],
    [{ registryUrl: "ftp://x" }, /registryUrl/],
    [{ delivery: { login: "spool" } }, /no family/],
    [{ delivery: { authentication: "sometimes" } }, /best_effort/],
    [{ delivery: { authentication: "spool" } }, /spoolDir/],
    [{ bufferBytes: "much" }, /bufferBytes/],
    [{ heartbeatS: -1 }, /heartbeatS/],
    [{ kafka: { sasl: { token: () => "" } } }, /plain data/],
    [{ bootstrapServers: "x" }, /no setting 'bootstrapServers'/],
  ];
  for (const [options, said] of cases) {
    assert.throws(() => new Audit({ service: "x", ...options }), (error) => {
      return error instanceof AuditConfigurationError && said.test(error.message);
    });
  }
});

test("settings come from the environment unless they are given", () => {
  const environment = { AUDIT_SERVICE: "a", AUDIT_TENANT: "acme", AUDIT_SPOOL_DIR: "/spool", AUDIT_ENVIRONMENT: "" };
  const settings = settingsFrom({ service: "b", version: undefined }, environment);

  assert.deepEqual([settings.service, settings.tenant, settings.spoolDir], ["b", "acme", "/spool"]);
  assert.deepEqual([settings.environment, settings.version], [undefined, undefined]);
  assert.equal(classOf(settings, "authentication"), "spool");
  assert.equal(classOf(settingsFrom({ service: "b" }, {}), "authentication"), "best_effort");
});
