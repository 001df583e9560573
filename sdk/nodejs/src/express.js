// Middleware for Express and every other framework that calls (req, res, next): the request's facts for
// its events.
//
// The address is that of the connection; a forwarded one counts only if the connection comes from a
// proxy that `trustedProxies` names. Who acts is not in a request until it is authenticated: name the
// actor with setContext({actor}) there.
import { randomUUID } from "node:crypto";
import { BlockList, isIP } from "node:net";

import { auditContext, traceOf } from "./context.js";
import { limits } from "./contract.js";
import { AuditConfigurationError } from "./errors.js";

const REQUEST_ID = /^[0-9A-Za-z_-]{1,64}$/;
const PRINTABLE = /^[\x20-\x7e\xa0-\xff]+$/;

/** `app.use(auditMiddleware({ trustedProxies: ["10.0.0.0/8"] }))`. */
export function auditMiddleware({ trustedProxies = [] } = {}) {
  const proxies = networks(trustedProxies);
  return (req, _res, next) => {
    const source = sourceOf(req, proxies);
    const agent = (req.headers["user-agent"] ?? "").slice(0, limits.text_chars);
    if (PRINTABLE.test(agent)) source.user_agent = agent;
    const given = req.headers["x-request-id"] ?? "";
    const request = {
      id: REQUEST_ID.test(given) ? given : randomUUID(), // the caller's, if it may be kept in clear
      ...traceOf(req.headers.traceparent ?? ""),
    };
    auditContext({ source: Object.keys(source).length ? source : undefined, request }, next);
  };
}

/** The nearest address that is no trusted proxy's, from the right. */
function sourceOf(req, proxies) {
  const address = plain(req.socket?.remoteAddress ?? "");
  if (!isIP(address)) return {};
  if (!isIn(proxies, address)) return { ip: address, port: req.socket.remotePort };
  let nearest = { ip: address, port: req.socket.remotePort };
  for (const part of (req.headers["x-forwarded-for"] ?? "").split(",").reverse()) {
    const hop = plain(part.trim());
    if (hop === "") continue;
    if (!isIP(hop)) break;
    nearest = { ip: hop };
    if (!isIn(proxies, hop)) break;
  }
  return nearest;
}

/** An IPv4 address as such, also where a socket of both kinds names it in IPv6. */
function plain(address) {
  return /^::ffff:\d+\./i.test(address) ? address.slice(7) : address;
}

function networks(given) {
  const list = new BlockList();
  for (const network of given) {
    const [address, bits] = network.split("/");
    const version = isIP(address);
    const most = version === 4 ? 32 : 128;
    const prefix = bits === undefined ? most : Number(bits);
    if (!version || !Number.isInteger(prefix) || prefix < 0 || prefix > most) {
      throw new AuditConfigurationError(`trustedProxies: '${network}' is no address and no network`);
    }
    list.addSubnet(address, prefix, `ipv${version}`);
  }
  return list;
}

function isIn(proxies, address) {
  return proxies.check(address, `ipv${isIP(address)}`);
}
