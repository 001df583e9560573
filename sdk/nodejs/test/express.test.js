// The middleware, in a real HTTP server: the request's facts are in its events, and nobody else's.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request as ask } from "node:http";
import test from "node:test";

import { Audit, setContext } from "../src/index.js";
import { traceOf } from "../src/context.js";
import { auditMiddleware } from "../src/express.js";
import { decode, FakeLine, keptLog } from "../testing/support.js";

const ACTOR = { type: "user", tenant: "acme", id_type: "user_id", id: "u-1" };
const TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const PROXIES = ["10.0.0.0/8", "127.0.0.1", "fd00::/8"];

/** The event of one request whose handler is authenticated after an await. */
async function eventOf(headers, { trustedProxies = PROXIES, host = "127.0.0.1" } = {}) {
  const line = new FakeLine();
  const audit = new Audit({ service: "web", tenant: "acme", log: keptLog(), heartbeatS: 0 }, () => line);
  const middleware = auditMiddleware({ trustedProxies });
  const server = createServer((req, res) => {
    middleware(req, res, async () => {
      await new Promise(setImmediate);
      setContext({ actor: ACTOR });
      audit.login({});
      res.end();
    });
  });
  await once(server.listen(0, host), "listening");
  const asked = ask({ host: "127.0.0.1", port: server.address().port, headers, agent: false });
  asked.end();
  const [answer] = await once(asked, "response");
  answer.resume();
  await once(answer, "end");
  server.close();
  await audit.close();
  return decode("authentication", line.records[0].body);
}

test("the middleware carries the request's facts", async () => {
  const headers = { "user-agent": "curl/8", "x-request-id": "rq-1", traceparent: TRACE };
  const event = await eventOf(headers, { trustedProxies: [] });

  assert.equal(event.actor.id, "u-1");
  assert.equal(event.source.ip, "127.0.0.1");
  assert.ok(event.source.port > 0);
  assert.equal(event.source.user_agent, "curl/8");
  const trace = { trace_id: "4bf92f3577b34da6a3ce929d0e0e4736", span_id: "00f067aa0ba902b7" };
  assert.deepEqual(event.request, { id: "rq-1", ...trace });
});

for (const [forwarded, trustedProxies, expected] of [
  ["203.0.113.1", [], "127.0.0.1"], // nobody's proxy: what it says counts nothing
  ["203.0.113.1", PROXIES, "203.0.113.1"],
  ["6.6.6.6, 203.0.113.1, 10.0.0.2", PROXIES, "203.0.113.1"],
  ["6.6.6.6, rubbish, 10.0.0.2", PROXIES, "10.0.0.2"],
  ["", PROXIES, "127.0.0.1"],
  ["2001:db8::1, fd00::7", PROXIES, "2001:db8::1"],
  ["203.0.113.1, ::ffff:10.0.0.9", PROXIES, "203.0.113.1"],
]) {
  test(`a forwarded address counts only from a trusted proxy: '${forwarded}'`, async () => {
    const event = await eventOf({ "x-forwarded-for": forwarded }, { trustedProxies });
    assert.equal(event.source.ip, expected);
  });
}

test("an IPv4 address is one, also on a socket of both kinds", async () => {
  const event = await eventOf({}, { trustedProxies: [], host: "::" });
  assert.equal(event.source.ip, "127.0.0.1");
});

for (const headers of [
  { "user-agent": "a\u0085b" },
  { "user-agent": "x".repeat(5_000) },
  { "x-request-id": "ada@example.com" },
  { "x-request-id": "x".repeat(5_000) },
  { traceparent: "00-zz-yy-01" },
  { "x-forwarded-for": "<script>" },
]) {
  test(`what a client sends spoils no event: ${Object.keys(headers)}`, async () => {
    const event = await eventOf(headers);
    assert.match(event.request.id, /^[0-9a-f-]{36}$/);
  });
}

test("a network that is none is a setting to mend", () => {
  for (const network of ["10.0.0.0/33", "proxy.example", "10.0.0.0/x", ""]) {
    assert.throws(() => auditMiddleware({ trustedProxies: [network] }), /trustedProxies/);
  }
});

for (const [text, isOne] of [
  [TRACE, true],
  ["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-will-be", true],
  ["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false],
  ["00-00000000000000000000000000000000-00f067aa0ba902b7-01", false],
  ["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false],
  ["00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", false],
  ["", false],
]) {
  test(`a traceparent is read as W3C has it: '${text}'`, () => {
    assert.equal(Object.keys(traceOf(text)).length > 0, isOne);
  });
}
