// A broker in this process, in the place of the sending thread; and events read back.
import { unpack } from "../src/batch.js";
import { families } from "../src/contract.js";

/** Keeps the promises of `Line`. What it is given arrives while it is `up`, in order. */
export class FakeLine {
  records = []; // {family, key, body}, as they came to the broker
  posted = 0;
  opened = 0;
  up = true;
  refuses = () => ""; // record → why the broker will not take it
  #waiting = [];
  #reports = [];
  #onReport;
  #onLost;

  open(onReport, onLost) {
    this.#onReport = onReport;
    this.#onLost = onLost;
    this.opened += 1;
  }

  post(number, bytes) {
    this.posted += 1;
    this.#waiting.push({ number, bytes });
    setImmediate(() => this.work() && this.#onReport());
  }

  take() {
    return this.#reports.shift();
  }

  wait() {
    this.work();
  }

  close() {}

  report(report) {
    this.#reports.push(report);
    this.#onReport();
  }

  /** The thread ends by itself. */
  fail() {
    this.#waiting = [];
    this.#onLost("Error TEST");
  }

  work() {
    if (!this.up) return false;
    for (const { number, bytes } of this.#waiting.splice(0)) {
      const refused = new Map();
      unpack(bytes).forEach((record, place) => {
        const why = this.refuses(record);
        if (why) refused.set(place, why);
        else this.records.push(record);
      });
      this.#reports.push({ kind: "sent", number, refused: refused.size ? refused : undefined });
    }
    return true;
  }
}

/** A log that is kept: `[name, facts]`. */
export function keptLog() {
  const lines = [];
  const keep = (name, facts) => lines.push([name, facts]);
  return { lines, info: keep, warn: keep, error: keep };
}

export async function until(holds, timeoutMs = 5_000) {
  const endMs = performance.now() + timeoutMs;
  while (!holds()) {
    if (performance.now() > endMs) throw new Error("not in time");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** An Avro body as its schema has it; whole numbers as numbers. Source: Avro 1.12, "Binary Encoding". */
export function decode(family, body) {
  const named = new Map();
  let at = 0;
  const long = () => {
    let value = 0n;
    let shift = 0n;
    for (;;) {
      const octet = body[at++];
      value |= BigInt(octet & 0x7f) << shift;
      if (octet < 0x80) return Number((value >> 1n) ^ -(value & 1n));
      shift += 7n;
    }
  };
  const text = () => {
    const size = long();
    at += size;
    return body.toString("utf8", at - size, at);
  };
  const blocks = (one) => {
    for (let count = long(); count !== 0; count = long()) for (let left = count; left; left -= 1) one();
  };
  const read = (schema) => {
    if (Array.isArray(schema)) return read(schema[long()]);
    const type = typeof schema === "string" ? schema : schema.type;
    if (schema.name) named.set(schema.name, schema);
    switch (type) {
      case "null":
        return null;
      case "string":
        return text();
      case "boolean":
        return body[at++] === 1;
      case "int":
      case "long":
        return long();
      case "enum":
        return schema.symbols[long()];
      case "record":
        return Object.fromEntries(schema.fields.map((field) => [field.name, read(field.type)]));
      case "array": {
        const found = [];
        blocks(() => found.push(read(schema.items)));
        return found;
      }
      case "map": {
        const found = {};
        blocks(() => (found[text()] = text()));
        return found;
      }
      default:
        return read(named.get(type.slice(type.lastIndexOf(".") + 1)));
    }
  };
  return read(families.get(family).schema);
}
