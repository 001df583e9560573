// What a request says of its events: actor, source, session, tenant; carried through the call.
import { AsyncLocalStorage } from "node:async_hooks";

const scopes = new AsyncLocalStorage();
const NOTHING = Object.freeze({});
const HEX = /^[0-9a-f]+$/;
const ZERO = /^0+$/;

/** Fields that events get unless the call says otherwise. */
export function current() {
  return scopes.getStore()?.fields ?? NOTHING;
}

/**
 * Run `work`; every event inside, also after an `await`, gets these fields. Fields are those of the
 * event: `tenant`, `actor`, `source`, `session`, `request`, … Records are merged field by field, the inner
 * ones winning; an actor replaces the outer one whole.
 */
export function auditContext(fields, work) {
  return scopes.run({ fields: merged(current(), fields) }, work);
}

/**
 * Add to the context that is open: where a request is authenticated, `setContext({actor, tenant})`.
 * Throws an `Error` if no context is open.
 */
export function setContext(fields) {
  const scope = scopes.getStore();
  if (scope === undefined) {
    throw new Error("no audit context is open: add the middleware, or use auditContext");
  }
  scope.fields = merged(scope.fields, fields);
}

/** `outer` with what `inner` says; records in records are merged, null and undefined say nothing. */
export function merged(outer, inner) {
  const result = { ...outer };
  for (const name of Object.keys(inner)) {
    const value = inner[name];
    if (value === undefined || value === null) continue;
    const known = result[name];
    result[name] = name !== "actor" && isRecord(known) && isRecord(value) ? { ...known, ...value } : value;
  }
  return result;
}

/**
 * `trace_id` and `span_id` of a `traceparent` header; nothing if it is not one.
 * Source: W3C Trace Context, version 00.
 */
export function traceOf(traceparent) {
  const [version, trace, span, flags] = traceparent.trim().toLowerCase().split("-");
  if (flags === undefined || version.length !== 2 || version === "ff") return {};
  if (trace.length !== 32 || span.length !== 16 || !HEX.test(trace + span)) return {};
  return ZERO.test(trace) || ZERO.test(span) ? {} : { trace_id: trace, span_id: span };
}

function isRecord(value) {
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}
