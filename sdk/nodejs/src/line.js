// The line to the sending thread: batches go out, reports come back.
//
// The Kafka client lives in a thread of its own (worker.js), so that compression and a broker's
// troubles never hold the application's event loop, and so that events still go out when that loop has
// ended: at exit this thread waits for the other one.
import { MessageChannel, receiveMessageOnPort, Worker } from "node:worker_threads";

/** One sending thread. It holds no process open. */
export class Line {
  #options;
  #worker;
  #port;
  #flag = new Int32Array(new SharedArrayBuffer(4)); // reports so far, modulo 2^32
  #seen = 0;
  #waiting; // the report that a "message" event brought, until it is taken

  /** `options` go to the thread (worker.js). */
  constructor(options) {
    this.#options = options;
  }

  /**
   * Begin. `onReport` is called when there is one to `take`, `onLost(why)` if the thread ended by
   * itself: nothing of what it had is known.
   */
  open(onReport, onLost) {
    const { port1, port2 } = new MessageChannel();
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), {
      name: "audit-sdk",
      execArgv: [],
      workerData: { port: port2, flag: this.#flag, options: this.#options },
      transferList: [port2],
    });
    const worker = this.#worker;
    let why = "";
    worker.on("error", (error) => (why = `${error.name} ${error.code ?? ""}`.trim()));
    worker.on("exit", (status) => {
      if (worker === this.#worker) onLost(why || `status ${status}`);
    });
    worker.unref();
    this.#port = port1;
    this.#waiting = undefined;
    port1.on("message", (report) => {
      this.#waiting = report;
      onReport();
    });
    port1.unref();
  }

  /** Hand a batch over; the bytes are the thread's from then on. */
  post(number, bytes) {
    this.#port.postMessage({ number, bytes }, [bytes]);
  }

  /** The next report, if there is one. */
  take() {
    const first = this.#waiting;
    this.#waiting = undefined;
    if (first !== undefined) return first;
    this.#seen = Atomics.load(this.#flag, 0);
    return receiveMessageOnPort(this.#port)?.message;
  }

  /** Hold this thread until there may be a report to take, or `timeoutMs` are over. */
  wait(timeoutMs) {
    Atomics.wait(this.#flag, 0, this.#seen, timeoutMs);
  }

  /** End the thread, whatever it is doing. */
  close() {
    const worker = this.#worker;
    this.#worker = undefined;
    this.#port?.close();
    return worker?.terminate();
  }
}
