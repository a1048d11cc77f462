// Puts the dashboard together in target/dashboard, and fails where it has outgrown its budget. Run by `cargo xtask build`.
import { copyFileSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { gzipSync } from "node:zlib";

const path = (relative) => new URL(relative, import.meta.url).pathname;
const packages = path("../.tools/node/node_modules");
const { buildSync } = createRequire(path("../.tools/node/package.json"))("esbuild");
const bound = path("../target/dashboard-bindgen");
const out = path("../target/dashboard");

/** Bytes, compressed by gzip, that a file may have. */
// The calendar of the client's clock took the last 827 bytes of it.
const BUDGETS = { "dashboard.wasm": 126_000, "main.js": 40_000, "style.css": 8_000 };

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
buildSync({
  entryPoints: [path("web/main.js"), path("web/early.js"), path("web/style.css")],
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  alias: { dashboard: `${bound}/dashboard.js` },
  nodePaths: [packages],
  legalComments: "none",
  logLevel: "warning",
});
for (const file of ["index.html", "icon.svg"]) copyFileSync(path(`web/${file}`), `${out}/${file}`);
copyFileSync(`${bound}/dashboard_bg.wasm`, `${out}/dashboard.wasm`);

for (const [name, budget] of Object.entries(BUDGETS)) {
  const bytes = readFileSync(`${out}/${name}`);
  const gzip = gzipSync(bytes).length;
  console.log(`  ${name}: ${bytes.length} bytes, ${gzip} gzipped (at most ${budget})`);
  if (gzip > budget) process.exitCode = 1;
}
