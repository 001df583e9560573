// The README's programs do what it says; `make test` runs its quick start on real servers.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, mkdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import test from "node:test";

const here = fileURLToPath(new URL("..", import.meta.url));
const readme = readFileSync(join(here, "README.md"), "utf8");
const blocks = (language) => [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\``, "gm"))].map(([, text]) => text);

test("the program without a broker prints what it says", () => {
  const folder = mkdtempSync(join(tmpdir(), "audit-sdk-"));
  try {
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(here, join(folder, "node_modules", "audit-sdk"));
    writeFileSync(join(folder, "start.mjs"), blocks("js").find((text) => text.includes("encode(")));
    const printed = execFileSync(process.execPath, ["start.mjs"], { cwd: folder, encoding: "utf8" });
    assert.equal(printed, blocks("text")[0]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("every setting that the README names is one", () => {
  const types = readFileSync(join(here, "src", "index.d.ts"), "utf8");
  const [, options] = types.match(/interface AuditOptions \{([^]*?)\n\}/);
  const settings = readFileSync(join(here, "src", "settings.js"), "utf8");
  for (const [, name] of options.matchAll(/^ {2}(\w+)\?:/gm)) {
    if (name !== "metrics" && name !== "log") assert.match(settings, new RegExp(`^ {2}${name}: `, "m"), name);
  }
  for (const [, name] of readme.matchAll(/`(\w+(?:S|Bytes|Dir|Tenant|Url))`/g)) {
    assert.match(options, new RegExp(`\\b${name}\\?:`), name);
  }
});
