// The package as it is published: its files, its installation in an empty folder, its types.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import test from "node:test";

const here = fileURLToPath(new URL("..", import.meta.url));

test("the package has its files and no others, and works where it is installed", () => {
  const folder = mkdtempSync(join(tmpdir(), "audit-sdk-"));
  const npm = (...words) => execFileSync("npm", words, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  try {
    const [{ filename, files }] = JSON.parse(npm("pack", here, "--json"));
    const names = files.map(({ path }) => path);
    assert.ok(names.includes("src/bundle.json") && names.includes("src/events.d.ts"));
    assert.ok(names.every((name) => /^(src\/|package\.json$|README\.md$|CHANGELOG\.md$)/.test(name)), names);

    writeFileSync(join(folder, "package.json"), '{ "private": true }');
    const offline = ["--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"];
    npm(...installation(), ...offline, `./${filename}`);
    assert.ok(!existsSync(join(folder, "node_modules", "@node-rs")), "what is optional");
    writeFileSync(join(folder, "start.mjs"), PROGRAM);
    const printed = execFileSync(process.execPath, ["start.mjs"], { cwd: folder, encoding: "utf8", stdio: "pipe" });
    assert.equal(printed, "function 1 audit_delivery_waits\n");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** The README's words for npm, but for what it installs. */
function installation() {
  const [, words] = readFileSync(join(here, "README.md"), "utf8").match(/^npm (.*) \.\/sdk\/nodejs$/m);
  return words.split(" ");
}

// Nobody listens on port 9: that it is said proves that the sending thread has found its modules.
const PROGRAM = `
import { Audit } from "audit-sdk";
import { auditMiddleware } from "audit-sdk/express";

const said = await new Promise((resolve) => {
  const log = { info() {}, warn: resolve, error: resolve };
  const audit = new Audit({
    service: "x", tenant: "acme", registryUrl: "http://127.0.0.1:9", bootstrap: "127.0.0.1:9",
    heartbeatS: 0, closeTimeoutS: 0, log,
  });
  audit.login({ actor: { type: "anonymous", tenant: "acme", id_type: "unknown" } });
  globalThis.pending = audit.pending;
  setTimeout(() => resolve("nothing"), 30_000);
});
console.log(typeof auditMiddleware(), globalThis.pending, said);
process.exit(0);
`;

test("the types say what is right", () => {
  const folder = join(here, "test", "types");
  const tsc = join(here, "node_modules", "typescript", "bin", "tsc");
  execFileSync(process.execPath, [tsc, "-p", folder], { cwd: here, encoding: "utf8", stdio: ["ignore", "inherit", "inherit"] });
});
