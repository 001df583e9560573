// What processes that are gone have left in the spool: found, taken over, sent, removed. Runs in the
// sending thread, before anything else is sent.
import { copyFile, readdir, readFile, rename, rmdir, stat, unlink } from "node:fs/promises";
import { basename, join } from "node:path";

import { stateOf } from "./lock.js";
import { isCut, parseRecords } from "./segments.js";
import { SEGMENT } from "./spool.js";

const RECOVERED = /-recovered\.seg$/;
const BEING_MADE_MS = 60_000;

/**
 * Move segments of processes that are gone into `folder`, this process's own, so that they are its to
 * send: `{segments, damaged, skipped}`, oldest first. `segments` holds `{path, bytes, records, remove()}`. One
 * that is damaged is kept beside the folders as well: a person may look at it; its records up to there
 * are sent. What cannot be read is skipped: `skipped` says what and why. `look` says a folder's state.
 */
export async function recover(folder, look = stateOf) {
  const parent = join(folder, "..");
  const found = { segments: [], damaged: [], skipped: [] };
  const paths = await segmentsOf(folder, RECOVERED); // of a sending thread that ended before
  for (const entry of await readdir(parent, { withFileTypes: true })) {
    const other = join(parent, entry.name);
    if (!entry.isDirectory() || other === folder) continue;
    await unlessSkipped(found, entry.name, async () => paths.push(...(await takeOver(other, folder, look))));
  }
  for (const path of paths.sort()) {
    await unlessSkipped(found, basename(path), () => read(path, parent, found));
  }
  return found;
}

/** What is in a segment of this process. */
async function read(path, parent, found) {
  const bytes = await readFile(path);
  const { records, end } = parseRecords(bytes);
  if (end < bytes.length && !isCut(bytes, end)) {
    const kept = join(parent, `${basename(path, ".seg")}.damaged`);
    await copyFile(path, kept);
    found.damaged.push(kept);
  }
  const segment = { path, bytes: bytes.length, records: records.length, remove: () => unlink(path) };
  if (records.length) found.segments.push(segment);
  else await unlink(path);
}

async function unlessSkipped(found, name, step) {
  try {
    await step();
  } catch (error) {
    if (error.code === undefined) throw error;
    found.skipped.push(`${name}: ${error.code}`);
  }
}

/** The records of a recovered segment. */
export async function recordsOf(segment) {
  return parseRecords(await readFile(segment.path)).records;
}

async function takeOver(other, folder, look) {
  const found = await segmentsOf(other, SEGMENT); // before its state: who has a segment has a lock
  const state = await look(other);
  if (state === "alive") return [];
  const taken = [];
  for (const path of found) {
    const name = basename(path);
    const again = RECOVERED.test(name); // found before, and not sent: it keeps its name
    const mine = join(folder, again ? name : `${basename(other)}-${name.slice(0, -4)}-recovered.seg`);
    if (await isDone(rename(path, mine))) taken.push(mine); // else another process was first
  }
  const justMade = state === "unlocked" && !found.length && Date.now() - (await ageOf(other)) < BEING_MADE_MS;
  if (!justMade) {
    await isDone(unlink(join(other, "lock")));
    await isDone(rmdir(other));
  }
  return taken;
}

async function segmentsOf(folder, pattern) {
  const names = await readdir(folder).catch(() => []); // gone: another process has emptied it
  return names.filter((name) => pattern.test(name)).sort().map((name) => join(folder, name));
}

async function ageOf(folder) {
  return stat(folder).then(({ mtimeMs }) => mtimeMs, () => 0);
}

/** False: what it was about is no longer there, or not empty. */
async function isDone(step) {
  try {
    await step;
    return true;
  } catch (error) {
    if (["ENOENT", "ENOTEMPTY", "EEXIST"].includes(error.code)) return false;
    throw error;
  }
}
