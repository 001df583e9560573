// A program that publishes through the Node.js SDK, run by the tests as a process of its own.
//
// sdk_program.mjs WHAT COUNT [OPTIONS]: the ids of the events that were accepted go to stdout, a line each.
// OPTIONS are the client's, as JSON.
import cluster from "node:cluster";
import { once } from "node:events";
import { writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import { Audit } from "../../sdk/nodejs/src/index.js";

const [what, count, options = "{}"] = process.argv.slice(2);
const ACTOR = { type: "user", tenant: "acme", id_type: "user_id" };

/** At once: the process may be killed. */
function say(eventId) {
  writeSync(1, `${eventId}\n`);
}

/** Log-ins of so many people, one after the other. */
async function publish(audit, each = () => {}) {
  for (let number = 0; number < Number(count); number += 1) {
    say(await audit.login({ actor: { ...ACTOR, id: `sdk-${number % 40}` } }));
    await each(number);
  }
}

const audit = new Audit({ service: "sdk-test", tenant: "acme", closeTimeoutS: 20, ...JSON.parse(options) });

const PROGRAMS = {
  /** Nobody closes: the event loop just has nothing more to do. */
  return: () => publish(audit),

  async exit() {
    await publish(audit);
    process.exit(0);
  },

  async throw() {
    await publish(audit);
    throw new Error("the application's own");
  },

  async close() {
    await publish(audit);
    process.exitCode = (await audit.close(30)) ? 3 : 0;
  },

  async wait() {
    await publish(audit);
    writeSync(2, "published\n");
    await sleep(60_000);
  },

  /** With a handler of its own, which says how the process ends. */
  async handled() {
    process.on("SIGTERM", () => process.exit(7));
    await PROGRAMS.wait();
  },

  steadily: () => publish(audit, () => sleep(5)),

  async cluster() {
    await publish(audit);
    if (cluster.isPrimary) await Promise.all([1, 2].map(() => once(cluster.fork(), "exit")));
    else process.exit(0);
  },

  /** Steadily, and at the end the longest that a call took and that the event loop stood still, in ms. */
  async measured() {
    const beganMs = performance.now();
    let slowestMs = 0;
    for (let number = 0; number < Number(count); number += 1) {
      const atMs = performance.now();
      const id = audit.login({ actor: { ...ACTOR, id: `sdk-${number % 40}` } });
      slowestMs = Math.max(slowestMs, performance.now() - atMs);
      say(await id);
      await sleep(2);
    }
    const left = await audit.close(60);
    writeSync(2, JSON.stringify({ slowestMs, left, tookMs: performance.now() - beganMs }));
  },

  /** `fail_closed`, and what became of it. */
  async confirmed() {
    try {
      await publish(audit);
      writeSync(2, "confirmed");
    } catch (error) {
      writeSync(2, error.name);
    }
    await audit.close(0.5);
  },
};

await PROGRAMS[what]();
