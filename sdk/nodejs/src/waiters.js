// Callers that wait for something that is settled elsewhere, each for so long.

/** Whoever waits holds the process: its event loop goes on until then. */
export class Waiters {
  #done = new Set();

  /** Resolves at the next `wake`, or when the time is over. */
  wait(timeoutS) {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#done.delete(done);
        resolve();
      };
      const timer = setTimeout(done, 1_000 * timeoutS);
      this.#done.add(done);
    });
  }

  wake() {
    for (const done of [...this.#done]) done();
  }
}
