// The sending thread: what former processes left in the spool, then batch after batch.
import { setTimeout as sleep } from "node:timers/promises";
import { workerData } from "node:worker_threads";

import { BATCH_BYTES, BATCH_EVENTS, unpack } from "./batch.js";
import { KafkaProducer } from "./kafka.js";
import { recordsOf, recover } from "./recovery.js";
import { SchemaIds } from "./registry.js";
import { Sender } from "./sender.js";

const { port, flag, options } = workerData;
let trouble = "";

const sender = new Sender({
  makeProducer: () => new KafkaProducer(options.kafka),
  ids: new SchemaIds(options.registry),
  onTrouble: say,
  sleep,
});

let turn = options.folder === undefined ? Promise.resolve() : sendFound(options.folder);
port.on("message", ({ number, bytes }) => {
  turn = turn.then(async () => {
    const refused = await sender.send(unpack(bytes));
    report({ kind: "sent", number, refused: refused.size ? refused : undefined });
  });
});

/** The count of reports lets the other thread wait for one. */
function report(said) {
  port.postMessage(said);
  Atomics.add(flag, 0, 1);
  Atomics.notify(flag, 0);
}

function say(why) {
  if (why !== trouble) report({ kind: "waits", why });
  trouble = why;
}

async function sendFound(folder) {
  const { segments, damaged, skipped } = await recover(folder);
  if (!segments.length && !damaged.length && !skipped.length) return;
  const events = segments.reduce((sum, { records }) => sum + records, 0);
  const bytes = segments.reduce((sum, segment) => sum + segment.bytes, 0);
  report({ kind: "found", events, bytes, damaged, skipped });
  for (const segment of segments) await sendSegment(segment);
}

/** One of which something was refused, or that cannot be read any more, stays for the next process. */
async function sendSegment(segment) {
  let trouble = "";
  try {
    for (const part of parts(await recordsOf(segment))) {
      const refused = await sender.send(part);
      trouble = refused.values().next().value ?? trouble;
    }
    if (!trouble) await segment.remove();
  } catch (error) {
    if (error.code === undefined) throw error;
    trouble = `spool: ${error.code}`;
  }
  if (trouble) say(trouble);
  else report({ kind: "resent", events: segment.records, bytes: segment.bytes });
}

function* parts(records) {
  let part = [];
  let size = 0;
  for (const record of records) {
    part.push(record);
    size += record.body.length;
    if (part.length === BATCH_EVENTS || size >= BATCH_BYTES) {
      yield part;
      part = [];
      size = 0;
    }
  }
  if (part.length) yield part;
}
