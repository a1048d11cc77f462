// Bundles the SDK into target/sdk, and fails where a file has outgrown its budget. Run by `cargo xtask build`.
import { copyFileSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { brotliCompressSync } from "node:zlib";

const path = (relative) => new URL(relative, import.meta.url).pathname;
const { buildSync } = createRequire(path("../.tools/node/package.json"))("esbuild");
const out = path("../target/sdk");

/** Bytes, compressed by brotli, that a file may have. */
const BUDGETS = { "catchment.js": 2_340, "catchment-more.js": 1_450 };

/** Names of properties that stay within one file, and those that the two have in common: one may be older than the other. */
const mangleProps = /^(schedule|online|leave|adopt|take|release|thaw|waits|id|text|ids|known|route|tried|adopted|forget)$/;
const mangleCache = { route: "r", tried: "t", adopted: "a", forget: "f" };
const common = { bundle: true, minify: true, target: "es2020", legalComments: "none", logLevel: "warning" };
buildSync({ ...common, entryPoints: [path("src/script.ts")], outfile: `${out}/catchment.js`, format: "iife", mangleProps, mangleCache });
buildSync({ ...common, entryPoints: [path("src/extras.ts")], outfile: `${out}/catchment-more.js`, format: "esm", mangleProps, mangleCache });
// For other people's bundlers, which minify: one file for each part, the extras apart.
buildSync({ ...common, minify: false, entryPoints: [path("src/index.ts")], outdir: out, format: "esm", splitting: true });
buildSync({ ...common, minify: false, entryPoints: [path("test/parts.ts")], outfile: path("../target/sdk-test/parts.mjs"), format: "esm" });
for (const file of ["package.json", "README.md"]) copyFileSync(path(file), `${out}/${file}`);
for (const file of ["LICENSE-APACHE", "LICENSE-MIT"]) copyFileSync(path(`../${file}`), `${out}/${file}`);

for (const [name, budget] of Object.entries(BUDGETS)) {
  const bytes = readFileSync(`${out}/${name}`);
  const brotli = brotliCompressSync(bytes).length;
  console.log(`  ${name}: ${bytes.length} bytes minified, ${brotli} brotli (at most ${budget})`);
  if (brotli > budget) process.exitCode = 1;
}
