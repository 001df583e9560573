// Schema ids from a registry that answers in every way.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import test from "node:test";

import { families } from "../src/contract.js";
import { AuditConfigurationError } from "../src/errors.js";
import { RegistryUnavailable, SchemaIds } from "../src/registry.js";

/** A registry that gives one answer; what it was asked. */
async function registry(context, status, body, options = {}) {
  const asked = [];
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const part of request) text += part;
    asked.push({ url: request.url, authorization: request.headers.authorization, text });
    if (status !== undefined) response.writeHead(status).end(body);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${server.address().port}/apis/ccompat/v7/`;
  return { ids: new SchemaIds({ url, timeoutS: 5, ...options }), asked };
}

test("an id is asked for once, by the schema that this SDK carries", async (context) => {
  const { ids, asked } = await registry(context, 200, '{"id": 42}', { username: "ada", password: "p:w" });

  assert.equal(await ids.ask("data-access"), 42);
  assert.equal(await ids.ask("data-access"), 42);
  assert.equal(asked.length, 1);
  assert.equal(asked[0].url, "/apis/ccompat/v7/subjects/audit.raw.data-access-value");
  assert.equal(asked[0].authorization, `Basic ${Buffer.from("ada:p:w").toString("base64")}`);
  assert.deepEqual(JSON.parse(JSON.parse(asked[0].text).schema), families.get("data-access").schema);
});

for (const [status, body, kind, said] of [
  [404, '{"error_code": 40403}', AuditConfigurationError, /not registered/],
  [404, "<html>", RegistryUnavailable, /status 404/],
  [401, "", AuditConfigurationError, /registryPassword/],
  [403, "", AuditConfigurationError, /registryPassword/],
  [500, "", RegistryUnavailable, /status 500/],
  [200, "<html>", RegistryUnavailable, /no JSON/],
  [200, '{"id": "x"}', RegistryUnavailable, /no id/],
  [200, " ".repeat(2 * 1024 * 1024), RegistryUnavailable, /RangeError/],
]) {
  test(`an answer of ${status} ${body.slice(0, 20).trim()}`, async (context) => {
    const { ids } = await registry(context, status, body);
    await assert.rejects(ids.ask("data-access"), (error) => error instanceof kind && said.test(error.message));
  });
}

test("a registry that says nothing is given up in time", async (context) => {
  const { ids } = await registry(context, undefined, "", { timeoutS: 0.1 });
  await assert.rejects(ids.ask("data-access"), RegistryUnavailable);
});

test("a registry that is not there is unavailable", async () => {
  const ids = new SchemaIds({ url: "http://127.0.0.1:9", timeoutS: 5 });
  await assert.rejects(ids.ask("data-access"), /registry: ECONNREFUSED/);
});
