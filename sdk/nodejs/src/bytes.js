// A buffer that grows, and Avro's numbers and texts in it.

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
    if (value >= -0x40000000 && value <= 0x3fffffff) {
      let rest = ((value << 1) ^ (value >> 31)) >>> 0;
      this.#room(5);
      while (rest > 0x7f) {
        this.#buffer[this.length++] = (rest & 0x7f) | 0x80;
        rest >>>= 7;
      }
      this.#buffer[this.length++] = rest;
    } else {
      this.bigLong(BigInt(value));
    }
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
