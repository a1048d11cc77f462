// The SDK on pages of a shop, in a real browser, through a gate that makes the weather, to the real edge.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe } from 'node:test';
import { Gate, Stage, browser, root, site, sleep, test, until } from './support.mjs';

const STUB = '<script>window.catchment=window.catchment||function(){(catchment.q=catchment.q||[]).push(arguments)}</script>';

let stage, gate, shop, local, chromium;
/** By the first part of a page's path, which is its client: what the page is made of. */
const sites = new Map();
/** By write key. */
const weather = new Map();

/** A page that counts, or has what it is told. */
const html = ({ pathname }) => {
  const { client, attributes = '', body = '', headers, query = '', from = gate } = sites.get(pathname.split('/')[1]) ?? {};
  const script = `<script async src="${from.url}/catchment.js${query}" data-key="${client?.write_key}" ${attributes}></script>`;
  return client && { headers, body: `<!doctype html><title>A page</title>${STUB}${script}${body}` };
};

before(async () => {
  stage = await Stage.start();
  chromium = await browser();
  gate = await Gate.start('stats.test', stage.edge);
  gate.weather = ({ query }) => ('slow' in query ? { delay: 700 } : weather.get(query.k)?.());
  shop = await site('shop.test', html);
  local = await site('localhost', html);
});

/** A site with a client of its own, and a browser profile that has never been there. */
async function visitor(name, { identity, within = chromium, ...content } = {}) {
  const client = await stage.client(name, identity);
  sites.set(name, { client, ...content });
  const context = await within.newContext();
  const said = [];
  context.on('console', (message) => said.push(message.text()));
  const open = async (path = '/', from = shop) => {
    const page = await context.newPage();
    await page.goto(`${from.url}/${name}${path}`);
    return page;
  };
  const mine = () => gate.posts.filter(({ query }) => query.k === client.write_key);
  const sent = () => mine().flatMap(({ events }) => events);
  return { client, context, said, open, mine, sent };
}

/** The page has answers for all that it sent: nothing waits. */
const settled = (page) => until('nothing waits', () => page.evaluate(() => localStorage.length === 0));
const track = (page, ...names) => page.evaluate((names) => names.forEach((name) => catchment('track', name)), names);

// Each has a client, a profile and weather of its own; most of their time they wait.
describe('the SDK', { concurrency: 6 }, () => {
  test('a page and what is tracked on it are counted, on another origin than the edge', async () => {
    const { client, context, open, mine, sent } = await visitor('first');
    const page = await open('/shoes/?utm_source=letter&secret=1');
    await page.evaluate(() => catchment('track', 'add_to_cart', { category: 'shoes', product: 'boot', plan: 'free', price: 12.5 }));
    await stage.counted(client, 'event_type', { page_view: 1, add_to_cart: 1 });
    assert.deepEqual(await stage.counts(client, 'page'), { '/first/shoes/': 2 });
    for (const [dimension, value] of [['category', 'shoes'], ['product', 'boot'], ['plan', 'free']])
      assert.deepEqual(await stage.counts(client, dimension), { [value]: 1 });
    assert.deepEqual(await stage.counts(client, '', 'sum:price'), { '': 12.5 });
    assert.deepEqual(await stage.counts(client, 'utm_source'), { letter: 1 });
    assert.ok(!JSON.stringify(sent()).includes('secret'), 'the query stays in the browser');
    const asked = gate.seen.filter(({ query, method }) => query.k === client.write_key && method === 'OPTIONS');
    assert.equal(asked.length, 0, 'no preflight');
    assert.ok(mine().every(({ headers }) => headers.cookie === undefined), 'no cookie');
    assert.deepEqual(await context.cookies(), []);
  });

  test('calls before the script has loaded are kept, in order', async () => {
    const body = `<script>catchment('track', 'one'); catchment('track', 'two')</script>`;
    const { client, open, sent } = await visitor('stub', { body, query: '?slow' });
    await open();
    await stage.counted(client, 'event_type', { page_view: 1, one: 1, two: 1 });
    const types = sent().map(({ event_type }) => event_type).filter((type) => type !== 'page_view');
    assert.deepEqual(types, ['one', 'two']);
  });

  test('pages of the history API are page views', async () => {
    const { client, open } = await visitor('history');
    const page = await open('/');
    await settled(page);
    await page.evaluate(() => history.pushState({}, '', '/history/two?x=1'));
    await page.evaluate(() => history.pushState({}, '', '/history/three'));
    await page.goBack();
    await stage.counted(client, 'page', { '/history/': 1, '/history/two': 2, '/history/three': 1 });
  });

  test('nopages leaves page views to the page', async () => {
    const { client, open } = await visitor('nopages', { attributes: 'data-auto="nopages"' });
    const page = await open('/');
    await page.evaluate(() => (history.pushState({}, '', '/nopages/two'), catchment('page')));
    await stage.counted(client, 'page', { '/nopages/two': 1 });
  });

  test('of an address with a click id its name is told, and never the id', async () => {
    const { open, sent } = await visitor('clicks');
    const page = await open('/?post_id=1&chat_id=2');
    const ids = ['gclid', 'gbraid', 'wbraid', 'msclkid', 'yclid', 'ttclid', 'twclid', 'li_fat_id', 'rdt_cid', 'fbclid', 'igshid'];
    for (const id of ids) {
      await settled(page);
      await page.goto(`${shop.url}/clicks/?post_id=1&${id}=private`);
    }
    await settled(page);
    assert.deepEqual(sent().map(({ click }) => click), [undefined, ...ids]);
    assert.ok(!JSON.stringify(sent()).includes('private'));
  });

  test('where a visitor comes from is told by host, once', async () => {
    const { client, open, sent } = await visitor('referrer');
    const news = await site('news.test', () => ({ body: `<a href="${shop.url}/referrer/?utm_campaign=spring">shop</a>` }));
    const page = await open('/');
    await page.goto(`${news.url}/some/article`);
    await page.click('a');
    await page.evaluate(() => catchment('track', 'look'));
    await page.reload();
    await stage.counted(client, 'event_type', { page_view: 3, look: 1 });
    assert.deepEqual(await stage.counts(client, 'utm_campaign'), { spring: 1 });
    assert.deepEqual(await stage.counts(client, 'channel'), { direct: 1, referral: 1 });
    assert.deepEqual(await stage.counts(client, 'source'), { '(direct)': 1, [new URL(news.url).host]: 1 });
    const referrers = sent().filter(({ referrer }) => referrer);
    assert.deepEqual(referrers.map(({ event_type, referrer }) => [event_type, referrer.split(':')[0]]), [['page_view', 'news.test']]);
  });

  test('clicks, forms, scrolling and vitals are caught where they are wanted', async () => {
    const body = `<button>buy</button><form action="javascript:void 0"><button id=go>go</button></form><div style="height:9000px"></div>`;
    const { client, open } = await visitor('auto', { attributes: 'data-auto="clicks forms scroll vitals"', body });
    const page = await open('/');
    await page.waitForLoadState('networkidle');
    await page.click('button');
    await page.click('#go');
    await page.mouse.wheel(0, 9_000);
    await sleep(300);
    await page.close();
    await stage.counted(client, 'event_type', { page_view: 1, click: 2, form_submit: 1, scroll: 1, web_vital: 1 });
    const { '': painted } = await stage.counts(client, '', 'max:lcp_ms');
    assert.ok(painted > 0 && painted < 60_000, `${painted} ms`);
    assert.deepEqual(await stage.counts(client, '', 'max:scroll_percent'), { '': 100 });
  });

  test('users, revenue by currency', async () => {
    const first = await visitor('money');
    for (const browser of [first, { open: first.open }]) {
      const page = await browser.open('/');
      await page.evaluate(() => {
        catchment('identify', 'ada', { plan: 'pro' });
        catchment('revenue', 12.5, 'EUR', { product: 'boot' });
        catchment('revenue', '0.1', 'eur');
        catchment('revenue', 7, 'USD', Object.fromEntries('abcdefghij'.split('').map((name) => [name, 1])));
        catchment('revenue', 'free', 'EUR');
        catchment('revenue', 5, 'euro');
      });
    }
    await stage.counted(first.client, 'event_type', { page_view: 2, revenue: 6 });
    assert.deepEqual(await stage.counts(first.client, '', 'sum:revenue_EUR'), { '': 25.2 });
    assert.deepEqual(await stage.counts(first.client, '', 'sum:revenue_USD'), { '': 14 });
    assert.deepEqual(await stage.counts(first.client, 'plan'), { pro: 6 });
  });

  test('a page that knows of another epoch learns the present one, and loses nothing', async () => {
    const script = (name) => readFile(join(root, 'target/sdk', name), 'utf8');
    const cached = await site('cached.test', async ({ pathname }) => ({
      type: 'text/javascript',
      body: (await script(pathname.slice(1))).replace('__EPOCH__', '7'),
      headers: { 'access-control-allow-origin': '*' },
    }));
    const { client, open, mine } = await visitor('epoch', { attributes: `data-endpoint="${gate.url}"`, from: cached });
    const page = await open('/');
    await track(page, 'x');
    await settled(page);
    await track(page, 'y');
    await stage.counted(client, 'event_type', { page_view: 1, x: 1, y: 1 });
    assert.deepEqual([...new Set(mine().map(({ query }) => query.r.split('.')[0]))], ['7', '1']);
  });

  test('with consent the next page knows the epoch that the last one learned, and no older route takes it back', async () => {
    const [pool, own] = [1, (1 << 24) + 1];
    const routes = [];
    const edge = await site('levels.test', async ({ searchParams }, request) => {
      const route = searchParams.get('r');
      // The client is hot; but who asks the pool once more is not told so.
      const epoch = routes.some(([epoch]) => epoch === pool) && route.startsWith('1.') ? pool : own;
      for await (const chunk of request) routes.push([parseInt(route), JSON.parse(chunk).events.at(-1).event_type]);
      return { status: 202, body: JSON.stringify({ flush_ms: 20, epoch }), headers: { 'access-control-allow-origin': '*' } };
    });
    const { client, open } = await visitor('levels', { attributes: `data-endpoint="${edge.url}"`, identity: 'device' });
    const seen = (...route) => until(`${route}`, () => routes.some((one) => `${one}` === `${route}`) || JSON.stringify(routes));
    const page = await open('/');
    await seen(pool, 'page_view');
    // Once the page has read the answer.
    const learned = () => routes.some((one) => `${one}` === `${[own, 'without']}`);
    await until('learned', async () => learned() || (await track(page, 'without'), await sleep(100), false));
    // Without consent nothing is kept.
    const another = await open('/another');
    await until('another', () => routes.filter((one) => `${one}` === `${[pool, 'page_view']}`).length === 2);
    // Once it has read the answer, too: with consent it would keep what that says.
    await until('answered', () => another.evaluate(() => localStorage.length === 0));
    await another.evaluate(() => catchment('consent', true));
    await track(page, 'with');
    await seen(own, 'with');
    await until('kept', () => page.evaluate((own) => Object.values(localStorage).some((kept) => kept.endsWith(` ${own}`)), own));
    const third = await open('/third');
    await seen(own, 'page_view');
    // What another tab has left, from before.
    await third.evaluate((key) => localStorage.setItem(`catchment ${key} 1.left x`, '{"event_type":"left"}'), client.write_key);
    const fourth = await open('/fourth');
    await seen(pool, 'left');
    await sleep(100);
    await track(fourth, 'after');
    await seen(own, 'after');
    assert.equal(routes.filter(([epoch, type]) => epoch === pool && type !== 'without').length, 3);
  });

  test('localhost is not counted, and the console says why; unless it is wanted', async () => {
    const ignored = await visitor('ignored');
    const wanted = await visitor('wanted', { attributes: 'data-localhost' });
    await track(await ignored.open('/', local), 'x');
    await track(await wanted.open('/', local), 'x');
    await stage.counted(wanted.client, 'event_type', { page_view: 1, x: 1 });
    await until('the reason', () => ignored.said.some((text) => /Catchment.*localhost/.test(text)));
    assert.equal(ignored.mine().length, 0);
  });

  test('nothing but unsent events is stored without consent, nothing more after it is withdrawn', async () => {
    const { client, context, open, sent } = await visitor('consent', { identity: 'device' });
    const stored = (page) => page.evaluate(async () => ({
      local: Object.entries(localStorage), session: Object.entries(sessionStorage), cookie: document.cookie,
      databases: (await indexedDB.databases()).length,
    }));
    const nothing = { local: [], session: [], cookie: '', databases: 0 };
    const page = await open('/');
    await settled(page);
    await context.setOffline(true);
    await track(page, 'offline');
    const { local, ...others } = await stored(page);
    assert.deepEqual({ local: [], ...others }, nothing);
    assert.equal(local.length, 1);
    assert.equal(JSON.parse(local[0][1]).event_type, 'offline');
    await context.setOffline(false);
    await settled(page);
    assert.deepEqual(await stored(page), nothing);
    assert.ok(sent().every(({ device_id, session_id }) => !device_id && !session_id));

    await page.evaluate(() => (catchment('consent', true), catchment('track', 'allowed')));
    await until('sent', () => sent().some(({ event_type }) => event_type === 'allowed'));
    const allowed = sent().find(({ event_type }) => event_type === 'allowed');
    assert.ok(allowed.device_id && allowed.session_id);
    assert.match(JSON.stringify(await stored(page)), new RegExp(allowed.device_id));
    const again = await open('/again');
    await until('sent', () => sent().some(({ page }) => page === '/consent/again'));
    assert.equal(sent().find(({ page }) => page === '/consent/again').device_id, allowed.device_id);

    await again.evaluate(() => (catchment('consent', false), catchment('track', 'withdrawn')));
    await settled(again);
    assert.deepEqual(await stored(again), nothing);
    await track(page, 'other_tab');
    await settled(page);
    const last = sent().filter(({ event_type }) => ['withdrawn', 'other_tab'].includes(event_type));
    assert.deepEqual(last.map(({ device_id, session_id }) => [device_id, session_id]), [[undefined, undefined], [undefined, undefined]]);
    await stage.counted(client, 'event_type', { page_view: 2, offline: 1, allowed: 1, withdrawn: 1, other_tab: 1 });
  });

  test('Global Privacy Control outweighs consent', async () => {
    const { client, context, open, sent } = await visitor('gpc', { identity: 'device' });
    // Chromium has no switch for it; extensions define it just so.
    await context.addInitScript(() => Object.defineProperty(navigator, 'globalPrivacyControl', { value: true }));
    const page = await open('/');
    await page.evaluate(() => (catchment('consent', true), catchment('track', 'x')));
    await stage.counted(client, 'event_type', { page_view: 1, x: 1 });
    assert.ok(sent().every(({ device_id, session_id }) => !device_id && !session_id));
    await settled(page);
  });

  test('a page without storage counts', async () => {
    const { client, open, said } = await visitor('sandbox', { headers: { 'content-security-policy': 'sandbox allow-scripts' } });
    const page = await open('/');
    assert.equal(await page.evaluate(() => { try { return localStorage.length } catch { return 'forbidden' } }), 'forbidden');
    await page.evaluate(() => (catchment('consent', true), catchment('track', 'x'), catchment('consent', false)));
    await track(page, 'y');
    await stage.counted(client, 'event_type', { page_view: 1, x: 1, y: 1 });
    assert.deepEqual(said.filter((text) => /error/i.test(text)), []);
  });

  test('a page whose storage is full counts', async () => {
    const { client, open } = await visitor('full', { identity: 'device', body: `<script>localStorage.full = 'x'.repeat(5 * 1024 * 1024 - 20)</script>` });
    const page = await open('/');
    await page.evaluate(() => (catchment('consent', true), catchment('track', 'x')));
    await track(page, 'y');
    await stage.counted(client, 'event_type', { page_view: 1, x: 1, y: 1 });
  });

  test('the script comes as the script that it is, in an encoding that is accepted', async () => {
    for (const [accepted, encoding] of [['gzip, br', 'br'], ['gzip, br;q=0', 'gzip'], ['gzip; q=0.5', 'gzip'], ['br;q=0.0', null], ['zebra', null]]) {
      const { headers } = await fetch(`${stage.edge}/catchment.js`, { headers: { 'accept-encoding': accepted } });
      assert.equal(headers.get('content-encoding'), encoding, accepted);
      assert.equal(headers.get('x-content-type-options'), 'nosniff');
    }
  });

  test('first-party, under a path of the site', async () => {
    const client = await stage.client('party');
    const own = await site('party.test', async ({ pathname, search }, request) => {
      if (!pathname.startsWith('/stats/'))
        return { body: `<title>A page</title>${STUB}<script async src="/stats/catchment.js" data-key="${client.write_key}"></script>` };
      const body = request.method === 'POST' ? { body: request, duplex: 'half' } : {};
      const answer = await fetch(stage.edge + pathname.slice('/stats'.length) + search, { method: request.method, ...body });
      return { status: answer.status, type: answer.headers.get('content-type'), body: await answer.text() };
    });
    const page = await chromium.newPage();
    await page.goto(`${own.url}/`);
    await track(page, 'x');
    await stage.counted(client, 'event_type', { page_view: 1, x: 1 });
    await page.close();
    });

  test('after 429 with Retry-After nothing is sent before its time', async () => {
    const shopper = await visitor('limited');
    weather.set(shopper.client.write_key, () => (shopper.mine().length === 1 ? { status: 429, headers: { 'retry-after': '3', 'access-control-expose-headers': 'retry-after' } } : undefined));
    const page = await shopper.open('/');
    await until('refused', () => shopper.mine().length === 1);
    await track(page, 'x');
    await stage.counted(shopper.client, 'event_type', { page_view: 1, x: 1 });
    const [refused, taken] = shopper.mine();
    assert.ok(taken.at - refused.at >= 2_900, `after ${taken.at - refused.at} ms`);
  });

  test('503, with and without leave to read it: sent again, and again later', async () => {
    const shopper = await visitor('refused');
    weather.set(shopper.client.write_key, () => ({ 1: { status: 503 }, 2: { status: 503, headers: { 'access-control-allow-origin': '' } } })[shopper.mine().length]);
    const page = await shopper.open('/');
    await track(page, 'x');
    await stage.counted(shopper.client, 'event_type', { page_view: 1, x: 1 });
    const [first, second, third] = shopper.mine();
    assert.ok(second.at - first.at >= 450, `after ${second.at - first.at} ms`);
    assert.ok(third.at - second.at >= 900, `after ${third.at - second.at} ms`);
  });

  test('what was taken without an answer is sent again by its name, and counted once', async () => {
    const shopper = await visitor('unanswered');
    weather.set(shopper.client.write_key, () => (shopper.mine().length === 1 ? { drop: 'answer' } : undefined));
    const page = await shopper.open('/');
    await settled(page);
    const [first, second] = shopper.mine();
    assert.equal(first.status, 202);
    assert.deepEqual([second.query.r, second.events[0].event_id], [first.query.r, first.events[0].event_id]);
    await stage.counted(shopper.client, 'event_type', { page_view: 1 });
    await until('a duplicate', async () => (await stage.counts(shopper.client, '', 'received:duplicate'))[''] === 1);
  });

  test('a slow network is not asked twice at a time', async () => {
    const shopper = await visitor('slow');
    let underWay = 0;
    let most = 0;
    weather.set(shopper.client.write_key, () => {
      most = Math.max(most, ++underWay);
      setTimeout(() => underWay--, 1_500);
      return { delay: 800, delayAnswer: 700 };
    });
    const began = performance.now();
    const page = await shopper.open('/');
    for (let i = 0; i < 20; i++) {
      await track(page, 'step');
      await sleep(100);
    }
    // Each waits for the answer to the one before it, however long the browser takes for the steps.
    const atMost = 3 + (performance.now() - began) / 1_500;
    await stage.counted(shopper.client, 'event_type', { page_view: 1, step: 20 });
    assert.equal(most, 1);
    assert.ok(shopper.mine().length <= atMost, `${shopper.mine().length} requests, at most ${atMost}`);
  });

  test('offline, then online', async () => {
    const { client, context, open, mine } = await visitor('offline');
    const page = await open('/');
    await settled(page);
    await context.setOffline(true);
    for (let i = 0; i < 5; i++) await track(page, 'away');
    await sleep(1_000);
    const before = mine().length;
    await context.setOffline(false);
    await settled(page);
    await stage.counted(client, 'event_type', { page_view: 1, away: 5 });
    assert.ok(mine().length <= before + 2, 'in one request, or two');
  });

  test('a tab closed offline is made up for by the next visit', async () => {
    const { client, context, open } = await visitor('return');
    const page = await open('/');
    await settled(page);
    await context.setOffline(true);
    await track(page, 'away', 'away');
    await page.close();
    await context.setOffline(false);
    await settled(await open('/back'));
    await stage.counted(client, 'event_type', { page_view: 2, away: 2 });
  });

  test('a tab closed right after events', async () => {
    const { client, open } = await visitor('closed');
    const page = await open('/');
    await settled(page);
    await track(page, 'a', 'b');
    await page.close();
    await stage.counted(client, 'event_type', { page_view: 1, a: 1, b: 1 });
  });

  test('more than a closing tab may send is sent by the next one', async () => {
    const { client, open } = await visitor('heavy');
    const page = await open('/');
    await settled(page);
    await page.evaluate(() => {
      for (let i = 0; i < 150; i++) catchment('track', 'heavy', { note: 'x'.repeat(1_000) });
    });
    await page.close();
    await settled(await open('/next'));
    await stage.counted(client, 'event_type', { page_view: 2, heavy: 150 });
  });

  test('reload in mid-send', async () => {
    const shopper = await visitor('reload');
    weather.set(shopper.client.write_key, () => ({ delayAnswer: 600 }));
    const page = await shopper.open('/');
    for (let i = 0; i < 4; i++) {
      await track(page, 'buy');
      await sleep(100);
      await page.reload();
    }
    await settled(page);
    await stage.counted(shopper.client, 'event_type', { page_view: 5, buy: 4 });
  });

  test('a page that comes back from the back/forward cache goes on', async () => {
    // Switched off by default where Chromium is driven.
    const within = await browser({ ignoreDefaultArgs: ['--disable-back-forward-cache'] });
    const { client, open } = await visitor('back', { within });
    const page = await open('/');
    await page.evaluate(() => addEventListener('pageshow', ({ persisted }) => (window.cached = persisted)));
    await settled(page);
    await track(page, 'leaves');
    await page.goto(`${shop.url}/back/other`);
    await settled(page);
    // There is nothing to load.
    await page.goBack({ waitUntil: 'commit' });
    await until('the page that was left', () => page.evaluate(() => window.cached === true));
    await track(page, 'comes');
    await settled(page);
    await stage.counted(client, 'page', { '/back/': 4, '/back/other': 1 });
    await stage.counted(client, 'event_type', { page_view: 3, leaves: 1, comes: 1 });
  });
});

test('an edge that is killed and comes back has everything', async () => {
  const { client, open } = await visitor('killed');
  const page = await open('/');
  await settled(page);
  await stage.kill('edge');
  await track(page, 'dark', 'dark');
  await sleep(1_500);
  await stage.start('edge');
  await settled(page);
  await stage.counted(client, 'event_type', { page_view: 1, dark: 2 });
});
