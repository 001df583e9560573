// The spool: what was appended is found again, whatever a crash left, and nothing else is.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";

import { AuditConfigurationError, NotAccepted } from "../src/errors.js";
import { hold, stateOf } from "../src/lock.js";
import { recordsOf, recover } from "../src/recovery.js";
import { packRecord } from "../src/segments.js";
import { Spool } from "../src/spool.js";

const MAX = { maxBytes: 1 << 20 };
const KEY = Buffer.from("acme/u");

function folderFor(context) {
  const parent = mkdtempSync(join(tmpdir(), "audit-spool-"));
  context.after(() => rmSync(parent, { recursive: true, force: true }));
  return parent;
}

const body = (number) => Buffer.from(`body ${number}`.repeat(20));
const expected = (count) => Array.from({ length: count }, (_, number) => body(number).toString());

function filled(parent, name, count, options = MAX) {
  const spool = new Spool(parent, name, options);
  const records = Array.from({ length: count }, (_, number) => spool.append("data-access", KEY, body(number)));
  return { spool, records };
}

/** What a process leaves that ended without a word. */
function left(parent, name, count) {
  const folder = join(parent, name);
  mkdirSync(folder);
  const segment = join(folder, "00000001.seg");
  const records = Array.from({ length: count }, (_, number) => packRecord("data-access", KEY, body(number)));
  writeFileSync(segment, Buffer.concat(records));
  return segment;
}

async function bodiesIn(segments) {
  const records = await Promise.all(segments.map(recordsOf));
  return records.flat().map((record) => record.body.toString());
}

test("records are those of every SDK", () => {
  // As sdk/python/audit_sdk/spool.py writes it.
  const record = packRecord("data-access", Buffer.from("k"), Buffer.from([1, 2]));
  assert.equal(record.toString("hex"), "00000011" + "0c4b5d5a" + "0b0001" + "646174612d616363657373" + "6b" + "0102");
});

test("a crash leaves every record, and what is sent is removed", async (context) => {
  const parent = folderFor(context);
  left(parent, "1", 30);
  const spool = new Spool(parent, "2", MAX);
  const { segments, damaged } = await recover(spool.folder);

  assert.deepEqual(await bodiesIn(segments), expected(30));
  assert.deepEqual(damaged, []);
  assert.deepEqual(readdirSync(parent), ["2"]);
  for (const segment of segments) await segment.remove();
  spool.close();
  assert.deepEqual(readdirSync(parent), []);
});

test("what was found and not sent is found again, in the same order", async (context) => {
  const parent = folderFor(context);
  left(parent, "1", 3);
  const second = new Spool(parent, "2", MAX);
  await recover(second.folder);
  second.append("data-access", KEY, body(3));
  second.close();
  const third = new Spool(parent, "3", MAX);
  const { segments } = await recover(third.folder);

  assert.deepEqual(await bodiesIn(segments), expected(4));
  assert.deepEqual(await bodiesIn((await recover(third.folder)).segments), expected(4));
});

test("the spool of a process that lives is left alone, though it stands still", async (context) => {
  const parent = folderFor(context);
  const program = `
    const { Spool } = await import(${JSON.stringify(new URL("../src/spool.js", import.meta.url).href)});
    new Spool(${JSON.stringify(parent)}, "1", { maxBytes: 1000 }).append("data-access", Buffer.from("k"), Buffer.from("b"));
    console.log("up");
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  child.kill("SIGSTOP");
  const spool = new Spool(parent, "2", MAX);
  try {
    assert.deepEqual((await recover(spool.folder)).segments, []);
  } finally {
    child.kill("SIGKILL");
  }
  await once(child, "exit");
  assert.deepEqual(await bodiesIn((await recover(spool.folder)).segments), ["b"]);
});

test("of two that recover at once each segment goes to one", async (context) => {
  const parent = folderFor(context);
  for (let number = 1; number <= 9; number += 1) left(parent, `${number}`, 2);
  const spools = ["a", "b"].map((name) => new Spool(parent, name, MAX));
  const found = await Promise.all(spools.map(({ folder }) => recover(folder)));

  assert.equal(found.flatMap(({ segments }) => segments).length, 9);
  assert.deepEqual(readdirSync(parent).sort(), ["a", "b"]);
});

test("a folder that is just being made is left alone", async (context) => {
  const parent = folderFor(context);
  mkdirSync(join(parent, "1"));
  const spool = new Spool(parent, "2", MAX);
  await recover(spool.folder);

  assert.deepEqual(readdirSync(parent).sort(), ["1", "2"]);
});

test("a process that starts while another one looks keeps what it writes", async (context) => {
  const parent = folderFor(context);
  const looking = new Spool(parent, "0", MAX);
  mkdirSync(join(parent, "1"));
  let started;
  const { segments } = await recover(looking.folder, async (other) => {
    const state = await stateOf(other);
    rmSync(other, { recursive: true });
    started = filled(parent, "1", 1); // from nothing to a segment, right after the look
    return state;
  });

  assert.deepEqual(segments, []);
  assert.ok(statSync(started.records[0].segment.path).size > 0);
});

test("a record that a crash cut is not read", async (context) => {
  const parent = folderFor(context);
  const segment = left(parent, "1", 10);
  const whole = readFileSync(segment);
  for (let cut = 1; cut < whole.length / 10; cut += 7) {
    mkdirSync(join(parent, "1"), { recursive: true });
    writeFileSync(segment, whole);
    truncateSync(segment, whole.length - cut);
    const spool = new Spool(parent, "2", MAX);
    const { segments, damaged } = await recover(spool.folder);
    assert.deepEqual(await bodiesIn(segments), expected(9));
    assert.deepEqual(damaged, []);
    await segments[0].remove();
    spool.close();
  }
});

for (const at of [0, 3, 5, 9, 40, 100]) {
  test(`damage in the middle is kept for a person: byte ${at}`, async (context) => {
    const parent = folderFor(context);
    const segment = left(parent, "1", 10);
    const content = readFileSync(segment);
    content[Math.floor((4 * content.length) / 10) + at] ^= 0x01;
    writeFileSync(segment, content);
    const spool = new Spool(parent, "2", MAX);
    const { segments, damaged } = await recover(spool.folder);

    assert.deepEqual(await bodiesIn(segments), expected(4));
    if (at === 0) return assert.deepEqual(damaged, []); // a length beyond the file looks like a cut
    assert.equal(damaged.length, 1);
    assert.deepEqual(readFileSync(damaged[0]), content);
  });
}

test("what cannot be read holds nothing else up", async (context) => {
  const parent = folderFor(context);
  left(parent, "1", 3);
  mkdirSync(join(parent, "2", "00000001.seg"), { recursive: true });
  const spool = new Spool(parent, "3", MAX);
  const { segments, skipped } = await recover(spool.folder);

  assert.deepEqual(await bodiesIn(segments), expected(3));
  assert.deepEqual(skipped, ["2-00000001-recovered.seg: EISDIR"]);
});

test("segments are cut and removed one by one", (context) => {
  const parent = folderFor(context);
  const { spool, records } = filled(parent, "1", 50, { ...MAX, segmentBytes: 1_000 });
  const files = () => readdirSync(spool.folder).filter((name) => name.endsWith(".seg")).length;
  const before = files();
  for (const record of records.slice(0, 25)) spool.delivered(record);
  const between = files();
  for (const record of records.slice(25)) spool.delivered(record);

  assert.ok(before > between && between > 1);
  assert.equal(files(), 1);
  assert.equal(spool.heldBytes, 0);
  spool.close();
  assert.deepEqual(readdirSync(parent), []);
});

test("an emptied segment is written on from its beginning", (context) => {
  const parent = folderFor(context);
  const { spool, records } = filled(parent, "1", 3);
  for (const record of records) spool.delivered(record);
  const { segment, start, end } = spool.append("data-access", KEY, body(7));

  assert.equal(start, 0);
  assert.equal(statSync(segment.path).size, end);
  assert.deepEqual(spool.read(segment, 0, end, 1_000).map((one) => one.body.toString()), [body(7).toString()]);
});

test("a record is read though it is longer than what is asked for", (context) => {
  const { spool, records } = filled(folderFor(context), "1", 3);
  const { segment } = records[0];
  const found = spool.read(segment, records[1].start, segment.size, 20);

  assert.deepEqual(found.map((one) => one.body.toString()), expected(3).slice(1));
});

test("a full spool takes nothing more until something is delivered", (context) => {
  const parent = folderFor(context);
  const { spool, records } = filled(parent, "1", 6, { maxBytes: 1_000, segmentBytes: 100 });
  assert.throws(() => spool.append("data-access", KEY, body(0)), NotAccepted);
  spool.delivered(records[0]);

  spool.append("data-access", KEY, body(5));
});

test("a folder that cannot be written is a setting to mend", (context) => {
  const parent = folderFor(context);
  copyFileSync(new URL(import.meta.url), join(parent, "file"));
  assert.throws(() => new Spool(join(parent, "file"), "1", MAX), AuditConfigurationError);
});

test("a lock is held once, also in a folder whose path is long", async (context) => {
  const parent = folderFor(context);
  for (const name of ["short", "x".repeat(200)]) {
    const folder = join(parent, name);
    mkdirSync(folder);
    assert.equal(await stateOf(folder), "unlocked");
    const lock = hold(folder);
    assert.equal(await stateOf(folder), "alive");
    assert.equal(hold(folder), undefined);
    lock.release();
    assert.deepEqual(readdirSync(folder), []);
  }
});
