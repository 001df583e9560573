// Events on their way to the sending thread: packed one after the other as they are accepted.
//
// A record: the family's place in the contract (1 byte), the lengths of key (2) and body (4), key, body.
import { families } from "./contract.js";

const HEAD = 7;
const NAMES = [...families.keys()];
const CODES = new Map(NAMES.map((name, code) => [name, code]));

export const BATCH_EVENTS = 500;
export const BATCH_BYTES = 256 * 1024;

/** Events that are sent together; `items` says of each whose it is. */
export class Batch {
  items = [];
  #bytes = Buffer.allocUnsafeSlow(16 * 1024);
  #size = 0;

  get isFull() {
    return this.items.length >= BATCH_EVENTS || this.#size >= BATCH_BYTES;
  }

  add(item, key, body) {
    const end = this.#size + HEAD + key.length + body.length;
    if (end > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(2 * this.#bytes.length, end));
      this.#bytes.copy(larger, 0, 0, this.#size);
      this.#bytes = larger;
    }
    const bytes = this.#bytes;
    bytes[this.#size] = CODES.get(item.family);
    bytes.writeUInt16BE(key.length, this.#size + 1);
    bytes.writeUInt32BE(body.length, this.#size + 3);
    key.copy(bytes, this.#size + HEAD);
    body.copy(bytes, this.#size + HEAD + key.length);
    this.#size = end;
    this.items.push(item);
  }

  /** A copy of the bytes that can be given away; the batch keeps its own until it is confirmed. */
  packed() {
    return this.#bytes.buffer.slice(0, this.#size);
  }
}

/** `{family, key, body}` of each record; keys and bodies are views of the bytes. */
export function unpack(packed) {
  const bytes = Buffer.from(packed);
  const records = [];
  let at = 0;
  while (at < bytes.length) {
    const bodyAt = at + HEAD + bytes.readUInt16BE(at + 1);
    const end = bodyAt + bytes.readUInt32BE(at + 3);
    records.push({
      family: NAMES[bytes[at]],
      key: bytes.subarray(at + HEAD, bodyAt),
      body: bytes.subarray(bodyAt, end),
    });
    at = end;
  }
  return records;
}
