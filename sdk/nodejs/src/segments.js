// The files of a spool: records one after the other, each with its length and checksum.
//
// A record: length and CRC-32 of the rest (4 bytes each, big endian), then the lengths of family (1 byte)
// and key (2 bytes), family, key and Avro body. The same bytes from each SDK.
import { closeSync, openSync, readSync } from "node:fs";
import { crc32 } from "node:zlib";

const HEAD = 8;
const LENGTHS = 3;
export const RECORD_MAX_BYTES = 1024 * 1024; // an event is 64 KiB at most: a longer record is damage

/** A record's bytes. */
export function packRecord(family, key, body) {
  const named = Buffer.byteLength(family);
  const size = LENGTHS + named + key.length + body.length;
  const record = Buffer.allocUnsafe(HEAD + size);
  record.writeUInt32BE(size, 0);
  record[HEAD] = named;
  record.writeUInt16BE(key.length, HEAD + 1);
  record.write(family, HEAD + LENGTHS);
  key.copy(record, HEAD + LENGTHS + named);
  body.copy(record, HEAD + LENGTHS + named + key.length);
  record.writeUInt32BE(crc32(record.subarray(HEAD)), 4);
  return record;
}

/**
 * Whole and undamaged records at the beginning of some bytes: `{records: [{family, key, body, end}], end}`;
 * the first that is not whole or not undamaged ends it. Keys and bodies are views of the bytes.
 */
export function parseRecords(bytes) {
  const records = [];
  let at = 0;
  while (at + HEAD <= bytes.length) {
    const size = bytes.readUInt32BE(at);
    const end = at + HEAD + size;
    if (size < LENGTHS || end > bytes.length) break;
    const rest = bytes.subarray(at + HEAD, end);
    if (crc32(rest) !== bytes.readUInt32BE(at + 4)) break;
    const keyAt = LENGTHS + rest[0];
    const bodyAt = keyAt + rest.readUInt16BE(1);
    records.push({
      family: rest.toString("utf8", LENGTHS, keyAt),
      key: rest.subarray(keyAt, bodyAt),
      body: rest.subarray(bodyAt),
      end,
    });
    at = end;
  }
  return { records, end: at };
}

/** Whether what follows a segment's last whole record is one that a crash cut: it has no end. */
export function isCut(bytes, at) {
  return bytes.length - at < HEAD || bytes.length - at - HEAD < bytes.readUInt32BE(at);
}

/** Bytes of a file from an offset on, `length` of them or what there is. */
export function readPart(path, start, length) {
  const bytes = Buffer.allocUnsafe(length);
  const file = openSync(path, "r");
  try {
    let got = 0;
    while (got < length) {
      const more = readSync(file, bytes, got, length - got, start + got);
      if (more === 0) break;
      got += more;
    }
    return bytes.subarray(0, got);
  } finally {
    closeSync(file);
  }
}
