// What the vectors cannot say: values that JSON has not, and that no value is ever quoted.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { encode, InvalidEvent, validate } from "../src/index.js";

const sample = JSON.parse(
  readFileSync(new URL("../../../samples/audit_log_example.json", import.meta.url), "utf8"),
).event;

test("a bigint is a whole number", () => {
  const time = { ...sample, occurred_at: BigInt(sample.occurred_at) };
  assert.deepEqual(encode("data-access", time), encode("data-access", sample));
});

test("undefined is what is left out", () => {
  const same = { ...sample, purpose: undefined, bogus: undefined };
  assert.deepEqual(encode("data-access", same), encode("data-access", sample));
});

test("half a surrogate pair is refused", () => {
  const [{ path, rule }] = validate("data-access", { ...sample, purpose: "a\ud800" });
  assert.deepEqual([path, rule], ["purpose", "unicode"]);
});

test("numbers that are none are refused", () => {
  for (const value of [NaN, Infinity, 1.5, "7", 2 ** 60]) {
    assert.equal(validate("data-access", { ...sample, record_count: value }).length, 1, String(value));
  }
});

test("no value stands in an error", () => {
  const secret = "hunter2-4711";
  for (const field of ["tenant", "operation", "occurred_at", "labels", "resources"]) {
    for (const value of [secret, [secret], { a: 1, b: secret }, `${secret}\0`]) {
      try {
        encode("data-access", { ...sample, [field]: value });
      } catch (error) {
        assert.ok(error instanceof InvalidEvent);
        assert.ok(!error.message.includes(secret), error.message);
      }
    }
  }
});

test("fields of the prototype are no fields", () => {
  const event = Object.assign(Object.create({ purpose: "inherited" }), sample);
  assert.deepEqual(encode("data-access", event), encode("data-access", sample));
});

test("a family that does not exist is named with those that do", () => {
  assert.throws(() => encode("login", {}), /login.*authentication/);
});

test("what is no record is refused", () => {
  for (const event of [null, [], "event", 7, undefined]) {
    assert.deepEqual(validate("data-access", event).map(({ rule }) => rule), ["type"]);
  }
});
