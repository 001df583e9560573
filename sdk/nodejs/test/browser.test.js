// The browser client on a page that is made up: its network, its clock, its ends.
import assert from "node:assert/strict";
import test from "node:test";
import { createRelay } from "audit-sdk/browser";

const UUID7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const URL_ = "https://relay.example/v1/relay/events";

function answer(status, body = {}, headers = {}) {
  return { status, headers: new Headers(headers), json: async () => body };
}

/** A page: `answers` are given to requests in turn, the last one for ever; an Error is a network that fails. */
function aPage(answers = [answer(202)], { beacon = true } = {}) {
  const page = {
    requests: [],
    beacons: [],
    timers: [],
    listeners: {},
    now: 1_790_000_000_123,
    crypto: globalThis.crypto,
    Math: { random: () => 0 },
    Date: { now: () => page.now },
    console: { error: () => {} },
    document: {
      visibilityState: "visible",
      addEventListener: (name, listener) => (page.listeners[name] = listener),
      removeEventListener: (name) => delete page.listeners[name],
    },
    navigator: {
      sendBeacon: (url, body) => {
        if (beacon) page.beacons.push(JSON.parse(body));
        return beacon;
      },
    },
    addEventListener: (name, listener) => (page.listeners[name] = listener),
    removeEventListener: (name) => delete page.listeners[name],
    setTimeout: (run, ms) => page.timers.push({ run, ms }) && page.timers.at(-1),
    clearTimeout: (timer) => (page.timers = page.timers.filter((one) => one !== timer)),
    fetch: async (url, request) => {
      page.requests.push({ url, ...request, body: JSON.parse(request.body) });
      const next = answers.length > 1 ? answers.shift() : answers[0];
      if (next instanceof Error) throw next;
      return next;
    },
  };
  page.ids = (at) => page.requests[at].body.events.map(({ event_id }) => event_id);
  return page;
}

function aRelay(page, options = {}) {
  const dropped = [];
  const onDropped = (one) => dropped.push(one);
  return { relay: createRelay({ url: URL_, token: "t-1", page, onDropped, ...options }), dropped };
}

test("an event has an id of its time and goes with the token", async () => {
  const page = aPage();
  const { relay } = aRelay(page);
  const id = relay.record("invoice.download", { resources: [{ type: "invoice", id: "i-1" }] });

  assert.match(id, UUID7);
  assert.equal(Number(`0x${id.replaceAll("-", "").slice(0, 12)}`), page.now);
  assert.equal(page.timers[0].ms, 2_000);
  assert.equal(await relay.flush(), 0);
  const [{ url, method, headers, credentials, body }] = page.requests;
  assert.deepEqual([url, method, credentials], [URL_, "POST", "omit"]);
  assert.equal(headers.Authorization, "Bearer t-1");
  assert.deepEqual(body, {
    events: [
      {
        client_time: "2026-09-21T14:13:20.123Z",
        resources: [{ type: "invoice", id: "i-1" }],
        event_id: id,
        action: "invoice.download",
      },
    ],
  });
});

test("ids differ, and fields cannot set them", () => {
  const { relay } = aRelay(aPage());
  const ids = Array.from({ length: 500 }, () => relay.record("a.b", { event_id: "mine", action: "x.y" }));
  assert.equal(new Set(ids).size, 500);
  assert.ok(ids.every((id) => UUID7.test(id)));
});

test("a full batch goes at once, and batches are bounded by number and bytes", async () => {
  const page = aPage();
  const { relay } = aRelay(page, { batchEvents: 3, batchBytes: 1_000 });
  for (let at = 0; at < 3; at += 1) relay.record("a.b");
  assert.equal(page.timers[0].ms, 0);
  for (let at = 0; at < 4; at += 1) relay.record("a.b", { labels: { k: "é".repeat(150) } });
  await relay.flush();

  const sizes = page.requests.map(({ body }) => Buffer.byteLength(JSON.stringify(body)));
  assert.deepEqual(page.requests.map(({ body }) => body.events.length), [3, 2, 2]);
  assert.ok(sizes.every((size) => size <= 1_000), sizes.join());
});

test("the queue is bounded, and what does not fit is told", async () => {
  const page = aPage();
  const { relay, dropped } = aRelay(page, { queueEvents: 2 });
  relay.record("a.b");
  relay.record("a.b");
  const third = relay.record("a.b");
  relay.record("a.b", { labels: { k: "x".repeat(70_000) } });

  assert.equal(relay.pending, 2);
  assert.deepEqual(dropped.map(({ reason }) => reason), ["queue_full", "too_large"]);
  assert.equal(dropped[0].events[0].event_id, third);
  await relay.close();
  relay.record("a.b");
  assert.equal(dropped.at(-1).reason, "closed");
});

test("without network, and at 429 and 503, the same ids are sent again, later and later", async () => {
  const page = aPage([
    new TypeError("network"),
    answer(503, {}, { "Retry-After": "7" }),
    answer(429, {}, { "Retry-After": "90" }),
    answer(202),
  ]);
  const { relay, dropped } = aRelay(page);
  const id = relay.record("a.b");
  const waits = [];
  for (let tries = 0; tries < 4; tries += 1) {
    await relay.flush();
    waits.push(page.timers.at(-1)?.ms);
  }
  assert.deepEqual(waits, [1_000, 7_000, 90_000, undefined]);
  assert.deepEqual([0, 1, 2, 3].map((at) => page.ids(at)), Array(4).fill([id]));
  assert.deepEqual(dropped, []);
  assert.equal(relay.pending, 0);
});

test("waits double up to their bound, and new events do not shorten them", async () => {
  const page = aPage([new TypeError("network")]);
  const { relay } = aRelay(page, { retryMaxMs: 3_000 });
  const waits = [];
  for (let tries = 0; tries < 4; tries += 1) {
    relay.record("a.b");
    await relay.flush();
    waits.push(page.timers.at(-1).ms);
  }
  assert.deepEqual(waits, [1_000, 2_000, 3_000, 3_000]);
  relay.record("a.b");
  assert.deepEqual(page.timers.map(({ ms }) => ms), [3_000]);
});

test("what a refusal names is dropped, and the rest goes again", async () => {
  const problem = { errors: [{ path: "events.1.action", rule: "allowed", detail: "" }] };
  const page = aPage([answer(422, problem), answer(202)]);
  const { relay, dropped } = aRelay(page);
  const ids = ["a.b", "c.d", "e.f"].map((action) => relay.record(action));
  assert.equal(await relay.flush(), 0);

  assert.deepEqual(page.ids(1), [ids[0], ids[2]]);
  assert.equal(dropped.length, 1);
  assert.equal(dropped[0].events[0].event_id, ids[1]);
  assert.deepEqual([dropped[0].reason, dropped[0].problem], ["refused", problem]);
});

test("a batch that is refused as a whole is dropped as a whole, a large one is divided", async () => {
  const page = aPage([answer(413), answer(202), answer(202), answer(403, { title: "no" }), answer(202)]);
  const { relay, dropped } = aRelay(page);
  for (let at = 0; at < 4; at += 1) relay.record("a.b");
  await relay.flush();
  assert.deepEqual(page.requests.map(({ body }) => body.events.length), [4, 2, 2]);
  relay.record("a.b");
  assert.equal(await relay.flush(), 0);
  assert.deepEqual(dropped.map(({ reason, events }) => [reason, events.length]), [["refused", 1]]);
});

test("a token that has expired is asked for again", async () => {
  const page = aPage([answer(401), answer(202)]);
  let number = 0;
  const { relay } = aRelay(page, { token: async () => `t-${(number += 1)}` });
  relay.record("a.b");
  await relay.flush();
  await relay.flush();
  assert.deepEqual(page.requests.map(({ headers }) => headers.Authorization), ["Bearer t-1", "Bearer t-2"]);
  assert.equal(relay.pending, 0);
});

test("a token that cannot be had is tried again", async () => {
  const page = aPage();
  const { relay } = aRelay(page, { token: () => Promise.reject(new Error("no")) });
  relay.record("a.b");
  assert.equal(await relay.flush(), 1);
  assert.equal(page.requests.length, 0);
  assert.equal(page.timers.at(-1).ms, 1_000);
});

test("events that the relay would find too old are told", async () => {
  const page = aPage([new TypeError("network")]);
  const { relay, dropped } = aRelay(page);
  relay.record("a.b");
  await relay.flush();
  page.now += 11 * 60_000;
  assert.equal(await relay.flush(), 0);
  assert.equal(dropped[0].reason, "expired");
});

for (const [name, leave] of [
  ["pagehide", (page) => page.listeners.pagehide()],
  ["a hidden page", (page) => ((page.document.visibilityState = "hidden"), page.listeners.visibilitychange())],
]) {
  test(`${name}: what is not confirmed goes by beacon, in pieces, and is confirmed later`, async () => {
    const page = aPage();
    const { relay } = aRelay(page, { batchEvents: 100 });
    const ids = [];
    for (let at = 0; at < 150; at += 1) ids.push(relay.record("a.b", { labels: { k: "x".repeat(700) } }));
    leave(page);

    assert.deepEqual(page.beacons.flatMap(({ events }) => events.map(({ event_id }) => event_id)), ids);
    assert.ok(page.beacons.length > 2);
    for (const one of page.beacons) {
      assert.equal(one.token, "t-1");
      assert.ok(one.events.length <= 100);
      assert.ok(Buffer.byteLength(JSON.stringify(one)) <= 60 * 1024);
    }
    assert.equal(await relay.flush(), 0); // the page came back: the same ids, recorded once
    assert.deepEqual(new Set(page.requests.flatMap((_, at) => page.ids(at))), new Set(ids));
  });
}

test("where a beacon is not taken, a request goes that outlives the page", () => {
  const page = aPage([answer(202)], { beacon: false });
  const { relay } = aRelay(page, { token: () => "t-9" });
  const id = relay.record("a.b");
  page.listeners.pagehide();

  const [{ keepalive, headers, body }] = page.requests;
  assert.equal(keepalive, true);
  assert.equal(headers["Content-Type"], "text/plain;charset=UTF-8");
  assert.equal(headers.Authorization, undefined);
  assert.equal(body.token, "t-9");
  assert.equal(body.events[0].event_id, id);
});

test("a beacon takes the last token where the next one would have to be waited for", async () => {
  const page = aPage([new TypeError("network")]);
  const { relay } = aRelay(page, { token: async () => "t-5" });
  relay.record("a.b");
  page.listeners.pagehide();
  assert.equal(page.beacons.length, 0); // none is known yet
  await relay.flush();
  page.listeners.pagehide();
  assert.equal(page.beacons[0].token, "t-5");
});

test("close leaves no timer and no listener", async () => {
  const page = aPage([new TypeError("network")]);
  const { relay } = aRelay(page);
  relay.record("a.b");
  assert.equal(await relay.close(), 1);
  assert.equal(page.beacons.length, 1);
  assert.deepEqual([page.timers, Object.keys(page.listeners)], [[], []]);
});

test("a hook that fails stops nothing, and options are checked", async () => {
  const page = aPage([answer(422), answer(202)]);
  const onDropped = () => {
    throw new Error("hook");
  };
  const relay = createRelay({ url: URL_, token: "t", page, onDropped });
  relay.record("a.b");
  assert.equal(await relay.flush(), 0);
  assert.throws(() => createRelay({ url: URL_ }), TypeError);
  assert.throws(() => createRelay({ url: URL_, token: "t", page, batchEvents: 101 }), RangeError);
});
