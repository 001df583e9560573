export { encode, validate } from "./codec.js";
export { families, limits } from "./contract.js";
export { AuditError, InvalidEvent } from "./errors.js";
export { murmur2, rawKey } from "./partition.js";
export { frame } from "./wire.js";
