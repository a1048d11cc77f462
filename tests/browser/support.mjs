// What the tests in a browser stand on: the stage with the real processes, a real Chromium, web sites on names of their
// own, and bad weather before the edge.

import { spawn } from 'node:child_process';
import { createServer, request as httpRequest } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { after, test as nodeTest } from 'node:test';

export { sleep };

/** The checkout. */
export const root = fileURLToPath(new URL('../..', import.meta.url));
/** Packages of npm that `cargo xtask` fetches. */
export const packages = createRequire(join(root, '.tools/node/'));
const { chromium } = packages('playwright-core');

const CHROMIUM = process.env.CATCHMENT_CHROMIUM ?? '/usr/bin/chromium';
/** Patience with one thing that is waited for. */
const PATIENCE_MS = 30_000;
const TEST_MS = 120_000;
/** Events of one request, and requests at a time. */
const BATCH = 500;
const SENDERS = 4;

/** What was started, by how it is ended: also after a failure nothing stays, or the tests would never end. */
const started = [];
after(async () => {
  for (const end of started.reverse()) await end().catch(() => {});
});

/** A test that may not hang. */
export const test = (name, run, options = {}) => nodeTest(name, { timeout: TEST_MS, ...options }, run);

/** Random choices that can be repeated: `CATCHMENT_SEED`, which is printed. */
export function random() {
  const seed = Number(process.env.CATCHMENT_SEED ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`CATCHMENT_SEED=${seed}`);
  let state = seed >>> 0;
  return () => {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Asks again and again until `check` is content: it answers true, or what is still wrong. */
export async function until(what, check, patience = PATIENCE_MS) {
  const deadline = Date.now() + patience;
  for (;;) {
    const wrong = await check();
    if (wrong === true) return;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${patience} ms${wrong ? `: ${wrong}` : ''}`);
    await sleep(50);
  }
}

/** Asks until there is an answer: 503 says that another time is better. */
async function answered(url, request) {
  for (;;) {
    const answer = await fetch(url, request);
    if (answer.ok) return answer.json();
    if (answer.status !== 503) throw new Error(`${url}: ${answer.status} ${await answer.text()}`);
    await sleep(1_000);
  }
}

/** The running deployment; see tests/harness/src/bin/stage.rs. */
export class Stage {
  #process;
  #lines;

  static async start(...args) {
    const stage = new Stage();
    started.push(() => stage.#end());
    stage.#process = spawn(join(root, 'target/debug/stage'), args, { stdio: ['pipe', 'pipe', 'inherit'] });
    stage.#lines = createInterface({ input: stage.#process.stdout })[Symbol.asyncIterator]();
    Object.assign(stage, await stage.#line());
    return stage;
  }

  async #line() {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('the stage has ended');
    const answer = JSON.parse(value);
    if (answer.error) throw new Error(answer.error);
    return answer;
  }

  /** One command; they are given one after the other. */
  async #command(command) {
    this.#process.stdin.write(`${JSON.stringify(command)}\n`);
    return this.#line();
  }

  kill = (name) => this.#command({ kill: name });
  term = (name) => this.#command({ term: name });
  start = (name) => this.#command({ start: name });
  fault = (before, fault) => this.#command({ fault: { before, fault } });
  /** Keys of a client that nobody else has. */
  client = (client, identity = 'user', backfill = false) => this.#command({ client: { client, identity, backfill } });
  /** The example shop: `{ url }`. */
  shop = (key) => this.#command({ shop: { key } });
  /** Sends a trace, and answers with its exact figures. */
  replay = (key, last, more = {}) => this.#command({ replay: { key, last, ...more } });

  /** A question, as the metrics API answers it. */
  ask(client, question) {
    const headers = { authorization: `Bearer ${client.read_key}` };
    return answered(`${this.aggregator}/api/v1/metrics?${question}`, { headers });
  }

  /** Sends events as a server would, in some requests at a time. */
  async send(client, events) {
    const batches = Array.from({ length: Math.ceil(events.length / BATCH) }, (_, i) => events.slice(i * BATCH, (i + 1) * BATCH));
    const sender = async () => {
      for (let batch; (batch = batches.pop());) {
        const request = { method: 'POST', body: JSON.stringify(batch) };
        const { rejected } = await answered(`${this.edge}/v1/events?k=${client.write_key}`, request);
        if (rejected.length > 0) throw new Error(`rejected: ${JSON.stringify(rejected[0])}`);
      }
    };
    await Promise.all(Array.from({ length: SENDERS }, sender));
  }

  /** A count over the last day and a little ahead, where no clock matters: of each group, or of all as ''. */
  async counts(client, group, metric = 'events') {
    const day = 86_400_000;
    const minute = (ms) => new Date(Math.floor(ms / 60_000) * 60_000).toISOString();
    const question = new URLSearchParams({ metric, start: minute(Date.now() - day), end: minute(Date.now() + day / 24) });
    if (group) question.set('group_by', group), question.set('limit', 1_000);
    const { results } = await this.ask(client, question);
    return Object.fromEntries(results.map((row) => [row.group ?? '', row.values[metric].value]));
  }

  /** Waits until counts are just these. */
  async counted(client, group, expected, patience) {
    const line = (counts) => JSON.stringify(Object.entries(counts).sort());
    await until(`${group} of ${client.client}`, async () => {
      const counts = line(await this.counts(client, group));
      return counts === line(expected) || `${counts} instead of ${line(expected)}`;
    }, patience);
  }

  async #end() {
    if (this.#process.exitCode !== null) return;
    const gone = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.stdin.end();
    await gone;
  }
}

/** Of a person's browser: a headless one's own agent is a bot's. */
const AGENT = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36';

/**
 * Debian's Chromium. Any name under `.test` leads here, so that sites have origins that are neither localhost nor each
 * other's.
 */
export async function browser(options = {}) {
  const args = ['--host-resolver-rules=MAP *.test 127.0.0.1', '--disable-dev-shm-usage', `--user-agent=${AGENT}`];
  const launched = await chromium.launch({ executablePath: CHROMIUM, chromiumSandbox: process.getuid() !== 0, args, ...options });
  started.push(() => launched.close());
  return launched;
}

/** A web server; `page` answers `{ status, type, body, headers }`, or nothing for a 404. */
export async function site(name, page) {
  const server = createServer(async (request, response) => {
    const found = await page(new URL(request.url, 'http://any'), request);
    const { status = 200, type = 'text/html; charset=utf-8', body = '', headers = {} } = found ?? { status: 404 };
    response.writeHead(status, { 'content-type': type, ...headers }).end(body);
  });
  return listening(server, name);
}

/**
 * HTTP between browsers and the edge. `weather(request, body)` answers what happens to a request: nothing, or some of
 * `{ delay, status, headers, drop: 'request' | 'answer', delayAnswer }`; and `seen` keeps what happened to each.
 */
export class Gate {
  seen = [];
  weather = () => undefined;

  static async start(name, to) {
    const gate = new Gate();
    const server = createServer((request, response) => {
      const chunks = [];
      request.on('data', (chunk) => chunks.push(chunk));
      request.on('end', () => gate.#pass(to, request, Buffer.concat(chunks), response));
    });
    return Object.assign(gate, await listening(server, name));
  }

  /** Requests with events, and what was in them. */
  get posts() {
    return this.seen.filter(({ method, path }) => method === 'POST' && path === '/v1/events');
  }

  async #pass(to, request, body, response) {
    const { pathname: path, searchParams } = new URL(request.url, to);
    const seen = { at: Date.now(), method: request.method, path, query: Object.fromEntries(searchParams), headers: request.headers };
    if (path === '/v1/events' && request.method === 'POST') seen.events = events(body);
    this.seen.push(seen);
    const weather = this.weather(seen) ?? {};
    seen.weather = weather;
    if (weather.delay) await sleep(weather.delay);
    if (weather.drop === 'request') return response.destroy();
    if (weather.status) {
      seen.status = weather.status;
      return response.writeHead(weather.status, { 'access-control-allow-origin': '*', ...weather.headers }).end();
    }
    const { host, ...headers } = request.headers;
    const passed = httpRequest(new URL(request.url, to), { method: request.method, headers }, async (answer) => {
      const chunks = [];
      for await (const chunk of answer) chunks.push(chunk);
      seen.status = answer.statusCode;
      if (weather.delayAnswer) await sleep(weather.delayAnswer);
      if (weather.drop === 'answer') return response.destroy();
      response.writeHead(answer.statusCode, answer.headers).end(Buffer.concat(chunks));
    });
    // The edge may be dead: then so is the connection to it.
    passed.on('error', () => response.destroy());
    passed.end(body);
  }
}

/** The events of a body, whichever of the forms it has. */
function events(body) {
  const parsed = JSON.parse(body.toString());
  return parsed.events ?? (Array.isArray(parsed) ? parsed : [parsed]);
}

async function listening(server, name) {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://${name}:${server.address().port}`;
  started.push(async () => {
    server.closeAllConnections();
    server.close();
  });
  return { url };
}
