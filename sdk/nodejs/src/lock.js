// Whether a process still has its spool folder.
//
// Node.js has no flock. What the kernel takes back from every process that ends, however it ends, and
// whichever container it ran in, is a socket: the owner listens on one in its folder, and a folder
// whose socket refuses a connection is of a process that is gone. A process id would not do: another
// container's process 1 is not ours, and ids are given out again.
import { closeSync, openSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";

const NAME = "lock";
const PATH_MAX_BYTES = 100; // sun_path holds 104 on macOS, 108 on Linux; libuv cuts longer ones

/** Hold the lock of a folder until `release` or the end of the process; undefined: it cannot be had. */
export function hold(folder) {
  const way = wayTo(folder);
  const server = createServer((connection) => connection.destroy());
  server.on("error", () => {}); // `listening` says it at once; this comes a tick later
  server.unref();
  server.listen({ path: way.path, exclusive: true }); // not by way of a cluster's primary
  if (!server.listening) {
    way.close();
    return undefined;
  }
  return {
    release() {
      server.close(); // removes the file as well
      way.close();
    },
  };
}

/**
 * Whether a folder's process is gone: "gone", "alive", or "unlocked" if there is no lock, which is a
 * folder that is just being made, or one that somebody else is emptying.
 */
export async function stateOf(folder) {
  const way = wayTo(folder);
  try {
    return await new Promise((resolve) => {
      const socket = connect(way.path);
      socket.once("connect", () => {
        socket.destroy();
        resolve("alive");
      });
      socket.once("error", ({ code }) => {
        resolve({ ECONNREFUSED: "gone", ENOENT: "unlocked" }[code] ?? "alive");
      });
    });
  } finally {
    way.close();
  }
}

/** A path to the lock that is short enough for a socket; on Linux there is one for every folder. */
function wayTo(folder) {
  const path = join(folder, NAME);
  if (Buffer.byteLength(path) <= PATH_MAX_BYTES || process.platform !== "linux") {
    return { path, close() {} };
  }
  const descriptor = openSync(folder, "r");
  return { path: `/proc/self/fd/${descriptor}/${NAME}`, close: () => closeSync(descriptor) };
}
