// The README's program prints what the README says.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, mkdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import test from "node:test";

const here = fileURLToPath(new URL("..", import.meta.url));
const readme = readFileSync(join(here, "README.md"), "utf8");
const block = (language) => readme.match(new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\``, "m"))[1];

test("the quick start prints what it says", () => {
  const folder = mkdtempSync(join(tmpdir(), "audit-sdk-"));
  try {
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(here, join(folder, "node_modules", "audit-sdk"));
    writeFileSync(join(folder, "start.mjs"), block("js"));
    const printed = execFileSync(process.execPath, ["start.mjs"], { cwd: folder, encoding: "utf8" });
    assert.equal(printed, block("text"));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the package has its files and no others", () => {
  const packed = execFileSync("npm", ["pack", "--dry-run", "--json"], { cwd: here, encoding: "utf8" });
  const [{ files }] = JSON.parse(packed);
  const names = files.map(({ path }) => path);
  assert.ok(names.includes("src/bundle.json") && names.includes("src/index.d.ts"));
  assert.ok(names.every((name) => /^(src\/|package\.json$|README\.md$|CHANGELOG\.md$)/.test(name)), names);
});
