// 2,000 events in sessions that end badly, over two regions, while a request in ten is answered 503 and some answers get lost:
// what arrives, what doesn't, and why.

import assert from 'node:assert/strict';
import { before } from 'node:test';
import { Gate, Stage, browser, random, site, sleep, test, until } from './support.mjs';

const EVENTS = 20;
const AT_A_TIME = 24;
const REFUSED = 0.1;
const UNANSWERED = 0.05;
/** The longest that a visitor is offline: a real minute; the others, some seconds. */
const OFFLINE_MS = 60_000;
/** Waits after 503s add up. */
const SETTLED_MS = 90_000;
const TEST_MS = 400_000;

/** How sessions end, and how many do. All but the `gone` come back later to another page of the site. */
const ENDS = { closed: 24, gone: 6, reloaded: 20, offline: 20, away: 10, crashed: 10, tabs: 10 };
/** Someone looks at the figures of these: their visitors' browsers send each half second, the others' each five. */
const WATCHED = ['north', 'east'];
const SITES = [...WATCHED, 'south', 'west'];

let stage, gate, shop, chromium;
const chance = random();
const clients = new Map();

before(async () => {
  stage = await Stage.start('--regions', '2');
  chromium = await browser();
  gate = await Gate.start('stats.test', stage.edge);
  for (const name of SITES) clients.set(name, await stage.client(name));
  shop = await site('shop.test', ({ pathname }) => {
    const client = clients.get(pathname.split('/')[1]);
    const script = `<script async src="${gate.url}/catchment.js" data-auto="nopages" data-key="${client?.write_key}"></script>`;
    return client && { body: `<!doctype html><title>A page</title>${script}` };
  });
});

/** What a request meets. */
function weather({ method, path }) {
  if (method !== 'POST' || path !== '/v1/events') return;
  const kind = chance();
  if (kind < REFUSED) return { status: 503, headers: kind < REFUSED / 2 ? { 'retry-after': '1', 'access-control-expose-headers': 'retry-after' } : {} };
  return { delayAnswer: chance() * 300, ...(kind < REFUSED + UNANSWERED ? { drop: 'answer' } : {}) };
}

/** One visitor, whose events are named `<session>.<n>`. */
class Session {
  #context;
  tracked = 0;

  constructor(number, end) {
    Object.assign(this, { name: `s${number}`, end, site: end === 'gone' ? WATCHED[number % 2] : SITES[number % 4] });
  }

  async #open() {
    const page = await this.#context.newPage();
    await page.goto(`${shop.url}/${this.site}/`);
    return page;
  }

  /** Some more events, but never more than there are to be. */
  async #track(page, events) {
    const numbers = Array.from({ length: Math.min(events, EVENTS - this.tracked) }, () => ++this.tracked);
    await page.evaluate(([type, numbers]) => {
      for (const n of numbers) catchment('track', type, { product: `${type}.${n}` });
    }, [this.name, numbers]);
  }

  async run() {
    this.#context = await chromium.newContext();
    const page = await this.#open();
    await this.#track(page, 4);
    await sleep(chance() * 1_000);
    await this[this.end](page);
    if (this.end !== 'gone') {
      const back = await this.#open();
      await this.#track(back, EVENTS);
      await until(`${this.name} (${this.end}) has sent all`, () => back.evaluate(() => localStorage.length === 0), SETTLED_MS);
    }
    await this.#context.close();
  }

  async closed(page) {
    await this.#track(page, 12);
    await page.close();
  }

  /** Its last events leave with the tab, or never. */
  async gone(page) {
    await this.#track(page, EVENTS - 2 - this.tracked);
    await until('sent', () => page.evaluate(() => localStorage.length === 0), SETTLED_MS);
    await this.#track(page, EVENTS);
    await page.close();
  }

  async reloaded(page) {
    for (let i = 0; i < 3; i++) {
      await this.#track(page, 4);
      await sleep(chance() * 200);
      await page.reload();
    }
    await page.close();
  }

  async offline(page) {
    await this.#context.setOffline(true);
    await this.#track(page, 6);
    await sleep(this.minute ? OFFLINE_MS : 1_000 + chance() * 4_000);
    await this.#track(page, 6);
    const closes = !this.minute && chance() < 0.5;
    if (closes) await page.close();
    await this.#context.setOffline(false);
    if (!closes) {
      await this.#track(page, 2);
      await page.close();
    }
  }

  async away(page) {
    await this.#track(page, 12);
    await page.goto(`${shop.url}/${this.site}/next`);
    await this.#track(page, 2);
    await page.goto('about:blank');
    await page.close();
  }

  async crashed(page) {
    await this.#track(page, 12);
    await sleep(chance() * 300);
    await page.goto('chrome://crash').catch(() => {});
  }

  async tabs(page) {
    const other = await this.#open();
    await Promise.all([this.#track(page, 6), this.#track(other, 6)]);
    await Promise.all([page.close(), other.reload()]);
    await this.#track(other, 2);
    await other.close();
  }
}

test('2,000 events in sessions that end badly', async () => {
  const sessions = Object.entries(ENDS).flatMap(([end, n]) => Array(n).fill(end)).map((end, n) => new Session(n, end));
  // The longest first, so that the others pass their time beside it.
  const minute = sessions.find(({ end }) => end === 'offline');
  minute.minute = true;
  const queue = [minute, ...sessions.filter((session) => session !== minute)];

  gate.weather = weather;
  const watching = setInterval(() => WATCHED.forEach((name) => stage.counts(clients.get(name)).catch(() => {})), 2_000);
  const visit = async () => {
    for (let session; (session = queue.shift());) await session.run();
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, visit));

  // What the edge said it took, whether the browser heard of it or not.
  const taken = new Set(gate.posts.filter(({ status }) => status === 202).flatMap(({ events }) => events.map((event) => event.event_id)));
  const total = async () => (await Promise.all(SITES.map((name) => stage.counts(clients.get(name))))).reduce((sum, { '': n = 0 }) => sum + n, 0);
  await until('all that was taken is counted', async () => (await total()) === taken.size || `${await total()} of ${taken.size}`);
  clearInterval(watching);

  const [types, products] = await Promise.all(
    ['event_type', 'product'].map(async (group) => Object.assign({}, ...(await Promise.all(SITES.map((name) => stage.counts(clients.get(name), group)))))),
  );
  const expected = sessions.flatMap((session) => Array.from({ length: EVENTS }, (_, n) => ({ session, name: `${session.name}.${n + 1}` })));
  const missing = expected.filter(({ name }) => !products[name]);
  const twice = expected.filter(({ name }) => products[name] > 1);
  const statuses = gate.posts.reduce((all, { status, weather }) => {
    const what = weather.drop ? `${status} that got lost` : status;
    return { ...all, [what]: (all[what] ?? 0) + 1 };
  }, {});
  console.log(`${expected.length} events in ${sessions.length} sessions: ${JSON.stringify(ENDS)}; offline ${OFFLINE_MS / 1_000} s at most`);
  console.log(`${gate.posts.length} requests were answered ${JSON.stringify(statuses)}`);
  console.log(`sent ${expected.length}, arrived ${expected.length - missing.length}, missing ${missing.length}, twice ${twice.length}`);
  for (const { session, name } of missing) {
    const tries = gate.posts.filter(({ events }) => events.some(({ properties }) => properties.product === name));
    console.log(`missing: ${name}, ${session.end}; its requests were answered ${JSON.stringify(tries.map(({ status }) => status ?? 'not at all'))}`);
  }

  assert.equal(expected.length, 2_000);
  assert.deepEqual(twice, []);
  assert.deepEqual(Object.keys(products).filter((name) => !expected.some((event) => event.name === name)), []);
  for (const session of sessions) {
    const lost = missing.filter((event) => event.session === session).length;
    assert.equal(types[session.name], EVENTS - lost, `${session.name}, ${session.end}`);
  }
  assert.ok(missing.length <= expected.length * 0.005, 'at least 99.5 % arrive');
  // Only who never comes back, and whose last request was refused, can lose events.
  for (const { session } of missing) assert.equal(session.end, 'gone', session.name);
}, { timeout: TEST_MS });
