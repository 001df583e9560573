// The contract that this release of the SDK carries: schemas, limits, patterns, rules. bundle.json is
// made from the trail's own avro_schemas and never edited by hand.
import { readFileSync } from "node:fs";

const bundle = JSON.parse(readFileSync(new URL("./bundle.json", import.meta.url), "utf8"));

/** Bounds: text in characters, the event and map entries in bytes, the rest in elements. */
export const limits = Object.freeze(bundle.limits);

/** path → {match: RegExp, doc}: what the text at a path looks like. */
export const patterns = new Map(
  Object.entries(bundle.patterns).map(([path, match]) => [
    path,
    { match: new RegExp(match, "u"), doc: bundle.pattern_docs[path] },
  ]),
);

/** family → {topic, subject, schema, rules}. */
export const families = new Map(Object.entries(bundle.families));
