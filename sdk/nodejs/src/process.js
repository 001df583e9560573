// The end of the process: what was accepted is sent before, whichever way it ends, a crash of its own
// code and process.exit() included; not kill -9.
import { isMainThread } from "node:worker_threads";

const SIGNALS = ["SIGTERM", "SIGINT"];
const open = new Set();

/** From now on a client is closed at the end of the process. */
export function watch(audit) {
  if (open.size === 0) {
    process.on("exit", drainAll);
    // A thread gets no signals, and a handler of the application's own stays the only one.
    if (isMainThread) {
      for (const signal of SIGNALS) {
        if (process.listenerCount(signal) === 0) process.on(signal, onSignal);
      }
    }
  }
  open.add(audit);
}

/** It was closed before. */
export function unwatch(audit) {
  if (!open.delete(audit) || open.size > 0) return;
  process.off("exit", drainAll);
  for (const signal of SIGNALS) process.off(signal, onSignal);
}

function drainAll() {
  for (const audit of [...open]) audit.drainAndClose();
}

/** The event loop goes on while events are sent; the second signal ends the process at once. */
async function onSignal(signal) {
  if (process.listenerCount(signal) > 1) return; // the application's own handler came later: it decides
  process.off(signal, onSignal);
  await Promise.all([...open].map((audit) => audit.close()));
  process.kill(process.pid, signal);
}
