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
 * send: `{segments, damaged}`, oldest first. `segments` holds `{path, bytes, records, remove()}`. A segment that is
 * damaged is kept beside the folders as well: a person may look at it; its records up to there are sent.
 */
export async function recover(folder) {
  const parent = join(folder, "..");
  const paths = await segmentsOf(folder, RECOVERED); // of a sending thread that ended before
  for (const name of (await readdir(parent, { withFileTypes: true })).filter(isFolder).sort(byName)) {
    const other = join(parent, name.name);
    if (other === folder) continue;
    const state = await stateOf(other);
    if (state !== "alive") paths.push(...(await takeOver(other, folder, state)));
  }
  const segments = [];
  const damaged = [];
  for (const path of paths.sort()) {
    const bytes = await readFile(path);
    const { records, end } = parseRecords(bytes);
    if (end < bytes.length && !isCut(bytes, end)) {
      const kept = join(parent, `${basename(path, ".seg")}.damaged`);
      await copyFile(path, kept);
      damaged.push(kept);
    }
    const segment = { path, bytes: bytes.length, records: records.length, remove: () => unlink(path) };
    if (records.length) segments.push(segment);
    else await unlink(path);
  }
  return { segments, damaged };
}

/** The records of a recovered segment. */
export async function recordsOf(segment) {
  return parseRecords(await readFile(segment.path)).records;
}

async function takeOver(other, folder, state) {
  const found = await segmentsOf(other, SEGMENT);
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

function isFolder(entry) {
  return entry.isDirectory();
}

function byName(one, other) {
  return one.name < other.name ? -1 : 1;
}
