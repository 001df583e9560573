// The spool: events in append-only files until the broker has them, over crashes and outages.
//
// A folder per process, in it segments of records (segments.js) and a lock (lock.js). One write per
// record: what was appended survives the process; a record that a crash cut is the last one and is not
// read. What a process leaves, the next one sends (recovery.js).
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  rmdirSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

import { AuditConfigurationError, NotAccepted } from "./errors.js";
import { hold } from "./lock.js";
import { packRecord, parseRecords, readPart, RECORD_MAX_BYTES } from "./segments.js";

export const SEGMENT_BYTES = 4 * 1024 * 1024;
export const SEGMENT = /\.seg$/;

/** One process's folder. Throws `AuditConfigurationError` if it cannot be made. */
export class Spool {
  #parent;
  #maxBytes;
  #segmentBytes;
  #lock;
  #file = -1;
  #number = 0;
  #segment;

  /** Bytes on disk, those that recovery has found among them. */
  heldBytes = 0;

  constructor(parent, name, { maxBytes, segmentBytes = SEGMENT_BYTES }) {
    this.#parent = parent;
    this.#maxBytes = maxBytes;
    this.#segmentBytes = segmentBytes;
    this.folder = join(parent, name);
    try {
      mkdirSync(parent, { recursive: true, mode: 0o700 });
      mkdirSync(this.folder, { mode: 0o700 });
    } catch (error) {
      throw new AuditConfigurationError(`spoolDir ${parent} cannot be written: ${error.code}`);
    }
    this.#lock = hold(this.folder);
    if (this.#lock === undefined) {
      throw new AuditConfigurationError(
        `spoolDir ${parent} takes no lock: it must allow Unix sockets, and its path be short`,
      );
    }
    this.#segment = this.#next();
  }

  /**
   * Add a record; on return it survives this process, not the loss of power: `{segment, start, end}`.
   * Throws `NotAccepted` if the spool or the disk is full.
   */
  append(family, key, body) {
    const record = packRecord(family, key, body);
    if (this.heldBytes + record.length > this.#maxBytes) {
      throw new NotAccepted(`the spool holds ${this.#maxBytes} bytes (spoolMaxBytes)`);
    }
    const segment = this.#written(record);
    const start = segment.size;
    segment.size += record.length;
    segment.records += 1;
    this.heldBytes += record.length;
    return { segment, start, end: segment.size };
  }

  /** The broker has a record; a segment of which it has all is removed, the last one emptied. */
  delivered({ segment }) {
    segment.delivered += 1;
    if (segment.delivered < segment.records) return;
    this.heldBytes -= segment.size;
    if (segment === this.#segment) {
      ftruncateSync(this.#file, 0);
      segment.size = segment.records = segment.delivered = 0;
    } else {
      rmSync(segment.path, { force: true });
    }
  }

  /** Records of a segment of this process from an offset to another: about `maxBytes`, at least one. */
  read(segment, start, end, maxBytes) {
    const length = Math.min(end - start, maxBytes);
    const found = parseRecords(readPart(segment.path, start, length)).records;
    if (found.length || length === end - start) return found;
    return parseRecords(readPart(segment.path, start, Math.min(end - start, RECORD_MAX_BYTES))).records;
  }

  /** Give the folder up; it goes if it is empty, else the next process finds it. */
  close() {
    closeSync(this.#file);
    this.#lock.release();
    if (this.#segment.size === 0) rmSync(this.#segment.path, { force: true });
    try {
      rmdirSync(this.folder);
    } catch (error) {
      if (!["ENOTEMPTY", "EEXIST", "ENOENT"].includes(error.code)) throw error; // or another was first
    }
  }

  /** The segment that a record was added to. */
  #written(record) {
    let written;
    try {
      if (this.#segment.size >= this.#segmentBytes) this.#segment = this.#next();
      written = writeSync(this.#file, record);
    } catch (error) {
      throw new NotAccepted(`the spool cannot be written: ${error.code}`);
    }
    if (written < record.length) {
      ftruncateSync(this.#file, this.#segment.size); // the disk is full: the cut record must not stay
      throw new NotAccepted("the spool's disk is full");
    }
    return this.#segment;
  }

  #next() {
    const path = join(this.folder, `${String(this.#number + 1).padStart(8, "0")}.seg`);
    const file = openSync(path, "ax", 0o600);
    if (this.#file >= 0) closeSync(this.#file);
    this.#file = file;
    this.#number += 1;
    return { path, size: 0, records: 0, delivered: 0 };
  }
}
