// A buffer that grows, and Avro's numbers and texts in it.

const SHORT = 63; // its length takes one byte
const EXACT = 2 ** 52; // twice as much is exact as a number, and one less

export class Bytes {
  #buffer = Buffer.allocUnsafe(1024);
  length = 0;

  #room(more) {
    if (this.length + more > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(2 * this.#buffer.length, this.length + more));
      this.#buffer.copy(larger, 0, 0, this.length);
      this.#buffer = larger;
    }
  }

  byte(value) {
    this.#room(1);
    this.#buffer[this.length++] = value;
  }

  /** A whole number within ±2^53: zigzag, then seven bits at a time, the lowest first. */
  long(value) {
    if (value < -EXACT || value > EXACT) return this.bigLong(BigInt(value));
    let rest = value < 0 ? -2 * value - 1 : 2 * value;
    this.#room(8);
    while (rest > 0x7fffffff) {
      this.#buffer[this.length++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    while (rest > 0x7f) {
      this.#buffer[this.length++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#buffer[this.length++] = rest;
  }

  bigLong(value) {
    let rest = BigInt.asUintN(64, (value << 1n) ^ (value >> 63n));
    this.#room(10);
    while (rest > 0x7fn) {
      this.#buffer[this.length++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.#buffer[this.length++] = Number(rest);
  }

  /**
   * A short text of printable ASCII, as `text` writes it; false, and nothing is written, if it is
   * another one. Letter by letter is quicker than the way out of JavaScript and back.
   */
  shortAscii(value) {
    const size = value.length;
    if (size > SHORT) return false;
    this.#room(size + 1);
    const buffer = this.#buffer;
    const at = this.length + 1;
    for (let place = 0; place < size; place += 1) {
      const code = value.charCodeAt(place);
      if (code < 0x20 || code > 0x7e) return false;
      buffer[at + place] = code;
    }
    buffer[at - 1] = 2 * size;
    this.length = at + size;
    return true;
  }

  /** The length in bytes, then UTF-8. */
  text(value) {
    const size = Buffer.byteLength(value);
    this.long(size);
    this.#room(size);
    this.#buffer.write(value, this.length, "utf8");
    this.length += size;
  }

  bytes(value) {
    this.#room(value.length);
    value.copy(this.#buffer, this.length);
    this.length += value.length;
  }

  /** A copy of what was written. */
  taken() {
    return Buffer.from(this.#buffer.subarray(0, this.length));
  }
}
