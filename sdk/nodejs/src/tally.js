// What became of a topic's events since the start, by number.

import { limits } from "./contract.js";

/** Counts of one topic; sequences that will not arrive as ranges. */
export class Tally {
  accepted = 0; // sequences given, so the next one
  delivered = 0; // of those, confirmed by the broker
  refused = 0; // events that were never given a sequence
  ranges = []; // {first, last}, ascending

  /**
   * An event that was given a sequence will not arrive; in any order, since brokers refuse by partition.
   * Of more ranges than an event may carry the two oldest become one.
   */
  drop(sequence) {
    const { ranges } = this;
    let at = ranges.length; // nearly always at the end
    while (at > 0 && ranges[at - 1].last >= sequence - 1) at -= 1;
    const touched = ranges[at];
    if (touched === undefined || touched.first > sequence + 1) {
      ranges.splice(at, 0, { first: sequence, last: sequence });
    } else {
      touched.first = Math.min(touched.first, sequence);
      touched.last = Math.max(touched.last, sequence);
      if (ranges[at + 1]?.first === touched.last + 1) touched.last = ranges.splice(at + 1, 1)[0].last;
    }
    if (ranges.length > limits.items) ranges[1].first = ranges.shift().first;
  }
}
