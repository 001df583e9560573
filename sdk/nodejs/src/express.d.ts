import type { IncomingMessage, ServerResponse } from "node:http";

/**
 * Middleware for Express and every other framework that calls `(req, res, next)`: the request's facts for
 * its events. `trustedProxies` are addresses and networks (10.0.0.0/8) whose X-Forwarded-For counts.
 */
export function auditMiddleware(options?: {
  readonly trustedProxies?: readonly string[];
}): (req: IncomingMessage, res: ServerResponse, next: (error?: unknown) => void) => void;
