// What an `Audit` is made of; each may come from the environment.
import { families } from "./contract.js";
import { AuditConfigurationError } from "./errors.js";

/** How hard the SDK tries for an event; see the README's table. */
export const DeliveryClass = Object.freeze({
  BEST_EFFORT: "best_effort",
  SPOOL: "spool",
  FAIL_CLOSED: "fail_closed",
});

/** The family of heartbeats; they are only worth something in their time. */
export const SYSTEM = "system";

const DEFAULTS = {
  service: "",
  bootstrap: "127.0.0.1:19092",
  registryUrl: "http://127.0.0.1:18080/apis/ccompat/v7",
  tenant: undefined,
  version: undefined,
  environment: undefined,
  instance: undefined,
  kafka: {},
  registryUsername: "",
  registryPassword: "",
  registryCaFile: undefined,
  delivery: {},
  spoolDir: undefined,
  spoolMaxBytes: 256 * 1024 * 1024,
  bufferBytes: 32 * 1024 * 1024,
  failClosedTimeoutS: 5,
  closeTimeoutS: 10, // the sending thread needs a second of processor time to start
  requestTimeoutS: 5,
  heartbeatS: 60,
  heartbeatTenant: undefined,
};
const VARIABLES = {
  service: "AUDIT_SERVICE",
  bootstrap: "AUDIT_KAFKA_BOOTSTRAP",
  registryUrl: "AUDIT_REGISTRY_URL",
  tenant: "AUDIT_TENANT",
  version: "AUDIT_SERVICE_VERSION",
  environment: "AUDIT_ENVIRONMENT",
  spoolDir: "AUDIT_SPOOL_DIR",
};

/**
 * Every setting: what is given here, then what the environment says, then the default.
 * Throws `AuditConfigurationError` for one that does not fit.
 */
export function settingsFrom(given, environment = process.env) {
  const settings = { ...DEFAULTS };
  for (const [name, variable] of Object.entries(VARIABLES)) {
    if (environment[variable]) settings[name] = environment[variable];
  }
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(DEFAULTS, name)) {
      throw new AuditConfigurationError(`there is no setting '${name}'`);
    }
    if (value !== undefined && value !== null) settings[name] = value;
  }
  check(settings);
  return Object.freeze(settings);
}

/** The delivery class of a family. Throws `AuditConfigurationError`. */
export function classOf(settings, family) {
  const { BEST_EFFORT, SPOOL } = DeliveryClass;
  const chosen = settings.delivery[family];
  if (chosen === undefined) return settings.spoolDir === undefined || family === SYSTEM ? BEST_EFFORT : SPOOL;
  const known = Object.values(DeliveryClass);
  if (!known.includes(chosen)) {
    throw new AuditConfigurationError(`delivery of ${family}: one of ${known.join(", ")}`);
  }
  if (chosen === SPOOL && settings.spoolDir === undefined) {
    throw new AuditConfigurationError(`delivery of ${family} is spool: set spoolDir`);
  }
  return chosen;
}

function check(settings) {
  if (!settings.service) {
    throw new AuditConfigurationError("service is empty: name the service (AUDIT_SERVICE)");
  }
  if (!/^https?:\/\//.test(settings.registryUrl)) {
    throw new AuditConfigurationError("registryUrl must begin with http:// or https://");
  }
  try {
    structuredClone(settings.kafka); // it goes to another thread
  } catch {
    throw new AuditConfigurationError("kafka: values must be plain data, not functions");
  }
  const unknown = Object.keys(settings.delivery).filter((name) => !families.has(name));
  if (unknown.length) {
    throw new AuditConfigurationError(`delivery names no family: ${unknown.sort().join(", ")}`);
  }
  for (const name of ["spoolMaxBytes", "bufferBytes", "failClosedTimeoutS", "requestTimeoutS"]) {
    if (!(settings[name] > 0)) throw new AuditConfigurationError(`${name} must be above 0`);
  }
  for (const name of ["closeTimeoutS", "heartbeatS"]) {
    if (!(settings[name] >= 0)) throw new AuditConfigurationError(`${name} must be 0 or more`);
  }
}
