import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { encode, families, frame, InvalidEvent, murmur2, rawKey, validate } from "../src/index.js";

// Numbers beyond 2^53 lose their last digits as numbers: they are read as bigint.
const text = readFileSync(new URL("../../conformance/vectors.json", import.meta.url), "utf8");
const vectors = JSON.parse(
  text.replace(/([:\s])(-?\d{16,})(?=[,\s}\]])/g, '$1"bigint:$2"'),
  (_, value) =>
    typeof value === "string" && value.startsWith("bigint:") ? BigInt(value.slice(7)) : value,
);

for (const vector of vectors.valid) {
  test(`valid: ${vector.name}`, () => {
    const key = rawKey(vector.event);
    assert.equal(frame(vectors.schema_id, encode(vector.family, vector.event)).toString("hex"), vector.value);
    assert.equal(key.toString(), vector.key);
    assert.equal(murmur2(key) % vectors.partitions, vector.partition);
    assert.equal(families.get(vector.family).topic, vector.topic);
  });
}

for (const vector of vectors.invalid) {
  test(`invalid: ${vector.name}`, () => {
    const found = validate(vector.family, vector.event).map(({ path, rule }) => [path, rule]);
    assert.deepEqual(found, vector.problems);
    assert.throws(() => encode(vector.family, vector.event), InvalidEvent);
  });
}
