export { Audit } from "./client.js";
export { encode, validate } from "./codec.js";
export { auditContext, setContext } from "./context.js";
export { families, limits } from "./contract.js";
export { AuditConfigurationError, AuditError, InvalidEvent, NotAccepted, NotDelivered } from "./errors.js";
export { murmur2, rawKey } from "./partition.js";
export { DeliveryClass } from "./settings.js";
export { frame } from "./wire.js";
