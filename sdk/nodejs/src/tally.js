// What became of a topic's events since the start, by number.

import { limits } from "./contract.js";

/** Counts of one topic; sequences that will not arrive as ranges. */
export class Tally {
  accepted = 0; // sequences given, so the next one
  delivered = 0; // of those, confirmed by the broker
  refused = 0; // events that were never given a sequence
  ranges = []; // {first, last}, ascending

  /**
   * An event that was given a sequence will not arrive. Of more ranges than an event may carry the two
   * oldest become one.
   */
  drop(sequence) {
    const newest = this.ranges.at(-1);
    if (newest !== undefined && newest.last + 1 === sequence) {
      newest.last = sequence;
      return;
    }
    this.ranges.push({ first: sequence, last: sequence });
    if (this.ranges.length > limits.items) {
      const [{ first }, { last }, ...rest] = this.ranges;
      this.ranges = [{ first, last }, ...rest];
    }
  }
}
