// How the types are used: what is right compiles, and what is wrong does not.
import { Audit, auditContext, InvalidEvent, setContext, type Actor } from "audit-sdk";
import { auditMiddleware } from "audit-sdk/express";

const actor: Actor = { type: "user", tenant: "acme", id_type: "user_id", id: "u-1" };
const resources = [{ tenant: "acme", type: "record", id: "r-1" }] as const;
const audit = new Audit({ service: "billing", delivery: { "security-change": "fail_closed" } });

const id: Promise<string> = audit.login({ actor });
audit.login({ outcome: "failure", failure_code: "invalid_password", occurred_at: new Date() });
audit.dataAccess({ action: "record.read", operation: "read", actor, resources });
audit.profileUpdate({ self_service: true, changes: [{ path: "phone" }] });
audit.adminAction({ action: "project.delete", operation: "delete", resources });
audit.securityChange({ action: "role.grant", change_kind: "role", resources });
audit.emit("data-access", { action: "record.read", operation: "read", resources });
const nothing: void = audit.check("data-access", { action: "record.read", operation: "read", resources });
const result: number = auditContext({ tenant: "acme", source: { ip: "192.0.2.1" } }, () => 7);
setContext({ actor });
auditMiddleware({ trustedProxies: ["10.0.0.0/8"] });

// @ts-expect-error there is no such operation
audit.dataAccess({ action: "record.read", operation: "looked", resources });
// @ts-expect-error self_service is required
audit.profileUpdate({ changes: [{ path: "phone" }] });
// @ts-expect-error there is no such field
audit.login({ actor, who: "u-1" });
// @ts-expect-error there is no such family
audit.emit("login", { actor });
// @ts-expect-error there is no such operation
audit.check("data-access", { action: "record.read", operation: "looked", resources });
// @ts-expect-error there is no such delivery class
new Audit({ delivery: { "data-access": "sometimes" } });

export const used = [id, nothing, result, InvalidEvent];
