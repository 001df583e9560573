// Schema ids: asked of the registry once per family, by the schema that this SDK carries.
//
// Confluent's REST interface, read only (POST /subjects/<subject> looks a schema up).
import { request as plain } from "node:http";
import { request as secure } from "node:https";

import { families } from "./contract.js";
import { AuditConfigurationError, AuditError } from "./errors.js";

const ANSWER_MAX_BYTES = 1024 * 1024;

/** The registry does not answer as it should; it is asked again later. */
export class RegistryUnavailable extends AuditError {}

/** Ids by family; asks once for each, and remembers. `ca` holds certificates in PEM. */
export class SchemaIds {
  #url;
  #options;
  #known = new Map();

  constructor({ url, username = "", password = "", ca, timeoutS }) {
    this.#url = url.replace(/\/+$/, "");
    this.#options = {
      method: "POST",
      ca,
      headers: { "Content-Type": "application/vnd.schemaregistry.v1+json" },
      timeoutMs: 1_000 * timeoutS,
    };
    if (username) this.#options.auth = `${username}:${password}`;
  }

  /**
   * The id of the family's schema. Rejects with `AuditConfigurationError` (not registered, or refused)
   * or `RegistryUnavailable` (ask again later).
   */
  async ask(family) {
    const known = this.#known.get(family);
    if (known !== undefined) return known;
    const { subject, schema } = families.get(family);
    const body = JSON.stringify({ schema: JSON.stringify(schema) });
    let answer;
    try {
      answer = await post(`${this.#url}/subjects/${subject}`, body, this.#options);
    } catch (error) {
      throw new RegistryUnavailable(`registry: ${error.code ?? error.name}`);
    }
    const id = idIn(family, answer);
    this.#known.set(family, id);
    return id;
  }
}

function idIn(family, { status, body }) {
  if (status === 404 && body.includes("error_code")) {
    throw new AuditConfigurationError(
      `the schema of ${family} is not registered; run: audit-trail schemas register`,
    );
  }
  if (status === 401 || status === 403) {
    throw new AuditConfigurationError(
      `the registry refuses registryUsername or registryPassword (${status})`,
    );
  }
  if (status !== 200) throw new RegistryUnavailable(`registry: status ${status}`);
  let id;
  try {
    id = JSON.parse(body).id;
  } catch {
    throw new RegistryUnavailable("registry: the answer is no JSON");
  }
  if (!Number.isInteger(id)) throw new RegistryUnavailable("registry: the answer has no id");
  return id;
}

/** `{status, body}`; rejects if there is no whole answer within `timeoutMs`. */
function post(url, body, { timeoutMs, ...options }) {
  const request = url.startsWith("https:") ? secure : plain;
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(timeoutMs);
    const asked = request(url, { ...options, signal }, async (answer) => {
      try {
        let text = "";
        answer.setEncoding("utf8");
        for await (const part of answer) {
          text += part;
          if (text.length > ANSWER_MAX_BYTES) throw new RangeError("too long");
        }
        resolve({ status: answer.statusCode, body: text });
      } catch (error) {
        reject(error);
      }
    });
    asked.on("error", reject);
    asked.end(body);
  });
}
