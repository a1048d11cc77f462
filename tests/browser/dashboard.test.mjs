// The dashboard that the aggregator serves, in a real browser: what it shows is what the metrics API says, and it stays so.

import assert from 'node:assert/strict';
import { before, describe } from 'node:test';
import { readFile } from 'node:fs/promises';
import { Stage, browser, packages, sleep, test, until } from './support.mjs';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** Its first instant. The day may end during the tests: these are the days that the events are of. */
const TODAY = Math.floor(Date.now() / DAY) * DAY;
const WIDE = { width: 1_280, height: 900 };
const PHONE = { width: 390, height: 844 };
/** Panel → the dimension that it lists. */
const GROUPS = { pages: 'page', sources: 'referrer', campaigns: 'utm_source', countries: 'country', devices: 'device', categories: 'category', products: 'product' };
/** What a panel of these ranks by: people, or else what they did. */
const ranked = (name) => (['categories', 'products'].includes(name) ? 'events' : 'users');

let stage, chromium;
/** A client with two days of events, which tests only read. */
let shop;
/** What every page's console said that it shouldn't. */
const complaints = [];

before(async () => {
  stage = await Stage.start('--dashboard');
  chromium = await browser();
  shop = await stage.client('shop', 'user', true);
  // More users than are counted exactly; yesterday a quarter more than the day before.
  await stage.send(shop, events('yesterday', 1_500, (i) => TODAY - 18 * HOUR + i * 20_000));
  await stage.send(shop, events('before', 1_200, (i) => TODAY - 42 * HOUR + i * 20_000));
  await stage.send(shop, events('today', 300, (i) => Math.max(TODAY, Date.now() - i * 9_000)));
  await until('all is counted', async () => (await stage.ask(shop, 'metric=events&last=7d')).results[0]?.values.events.value === 3_000);
});

/** Events of a shop with something in every dimension, at the times that `at` says. */
const events = (name, n, at) => Array.from({ length: n }, (_, i) => ({
  event_id: `${name}-${i}`, event_type: ['page_view', 'click', 'page_view', 'revenue'][i % 4], timestamp: Math.floor(at(i)), user_id: `u${i}`,
  page: `/page/${Math.floor(Math.sqrt(i % 150))}`, referrer: ['news.example', 'search.example', undefined][i % 3], utm_source: ['letter', undefined][i % 2],
  country: ['DE', 'FR', 'US', 'BR', 'JP'][(i * i) % 5], device: ['desktop', 'mobile', 'mobile', 'tablet'][i % 4],
  category: ['shoes', 'hats', '=1+1'][i % 3], product: `thing, "${(i * 7) % 11}"`,
  properties: i % 4 === 3 ? { [i % 8 === 3 ? 'revenue_EUR' : 'revenue_USD']: 12.34 + i } : {},
}));

/** The dashboard in a window of its own. */
async function open(client, { path = '/', fragment = '' } = {}) {
  const context = await chromium.newContext({ viewport: WIDE });
  const page = await context.newPage();
  // A connection that breaks is what some tests are about.
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()) && !/WebSocket|Failed to load resource/.test(message.text())) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('request', (request) => {
    if (!/^(data|blob):/.test(request.url()) && new URL(request.url()).host !== new URL(stage.aggregator).host) complaints.push(request.url());
  });
  await page.goto(`${stage.aggregator}${path}#${[client && `key=${client.read_key}`, fragment].filter(Boolean).join('&')}`);
  if (client) await page.waitForSelector('[data-connection=live]');
  return page;
}

/** In light and dark, on a desktop and a phone; and nothing is wider than the window. */
async function axeFindsNothing(page) {
  // Through the debugger: the page's own policy lets no foreign script in.
  await page.evaluate(await readFile(packages.resolve('axe-core/axe.min.js'), 'utf8'));
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    for (const viewport of [WIDE, PHONE]) {
      await page.setViewportSize(viewport);
      await sleep(500);
      const violations = await page.evaluate(async () => (await axe.run({ resultTypes: ['violations'] })).violations);
      const bad = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
      assert.deepEqual(bad.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), [], `${colorScheme}, ${viewport.width} wide`);
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(width <= viewport.width, `the page is ${width} wide, of ${viewport.width}`);
    }
  }
}

const connection = (page, state) => page.waitForSelector(`[data-connection=${state}]`);

/** Every number that the page shows, by panel. */
const shown = (page) => page.evaluate((groups) => {
  const panel = (name) => document.querySelector(`[data-panel=${name}]`);
  const number = (element) => element && Object.fromEntries(
    ['value', 'lower', 'upper'].filter((name) => name in element.dataset).map((name) => [name, Number(element.dataset[name])]),
  );
  const rows = (name) => [...panel(name).querySelectorAll('[data-row]')].map((row) => [row.dataset.row, number(row.querySelector('[data-value]')).value]);
  return {
    active: number(panel('active').querySelector('[data-value]')),
    users: number(panel('users').querySelector('[data-value]')),
    events: [...panel('events').querySelectorAll('[data-value]')].map((element) => number(element).value),
    ...Object.fromEntries(groups.map((name) => [name, rows(name)])),
    revenue: rows('revenue'),
  };
}, Object.keys(GROUPS));

/** The same, asked of the metrics API. */
async function asked(client, when) {
  const ask = async (question) => (await stage.ask(client, question)).results;
  const estimate = ({ value, lower, upper }) => ({ value, lower, upper });
  const zero = { value: 0, lower: 0, upper: 0 };
  const [[active], [total], [money], ...groups] = await Promise.all([
    ask('metric=users&last=5m'),
    ask(`metric=users&metric=events&metric=page_views&${when}`),
    ask(`metric=sum:revenue_EUR&metric=sum:revenue_USD&${when}`),
    ...Object.entries(GROUPS).map(([name, dimension]) => ask(`metric=${ranked(name)}&group_by=${dimension}&limit=8&${when}`)),
  ]);
  const revenue = ['EUR', 'USD'].map((currency) => [currency, money?.values[`sum:revenue_${currency}`]?.value]).filter(([, sum]) => sum !== undefined);
  return {
    active: active ? estimate(active.values.users) : zero,
    users: total ? estimate(total.values.users) : zero,
    events: total ? [total.values.events.value, total.values.page_views.value] : [0, 0],
    ...Object.fromEntries(Object.keys(GROUPS).map((name, i) => [name, groups[i].map(({ group, values }) => [group, values[ranked(name)].value])])),
    revenue: revenue.sort(([, a], [, b]) => b - a),
  };
}

/** Waits until the page shows, panel for panel, what the API says of the same time. */
async function same(page, client, when) {
  let expected;
  await until(`the dashboard shows what the API says of ${when}`, async () => {
    expected = await asked(client, when);
    const found = await shown(page);
    const wrong = Object.keys(expected).filter((name) => JSON.stringify(expected[name]) !== JSON.stringify(found[name]));
    return wrong.length === 0 || wrong.map((name) => `${name}: ${JSON.stringify(found[name])} instead of ${JSON.stringify(expected[name])}`).join('; ');
  });
  return expected;
}

const range = (page, word) => page.click(`[data-range="${word}"]`);
const date = (ms) => new Date(ms).toISOString().slice(0, 10);
const YESTERDAY = date(TODAY - DAY);
const BEFORE = date(TODAY - 2 * DAY);
const days = (from, to) => `start=${from}&end=${date(Date.parse(to) + DAY)}`;

async function showDates(page, from, to) {
  await page.click('[data-range=days]');
  await page.fill('[data-part=from]', from);
  await page.fill('[data-part=to]', to);
  await page.click('[data-part=dates-form] button[type=submit]');
}

/** What a panel's button saves, as records. */
async function csv(page, panel) {
  const [download] = await Promise.all([page.waitForEvent('download'), page.click(`[data-panel=${panel}] [data-action=csv]`)]);
  const text = await readFile(await download.path(), 'utf8');
  const record = (line) => [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^",]*))/g)].map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain);
  return { name: download.suggestedFilename(), records: text.trimEnd().split('\r\n').slice(1).map(record) };
}

describe('the dashboard', { concurrency: 4 }, () => {
  test('every panel shows what the API says, in every range', async () => {
    const page = await open(shop);
    const today = await same(page, shop, 'last=1d');
    assert.ok(today.pages.length === 9 && today.revenue.length === 2, 'there is something to compare');
    for (const word of ['7d', '30d', '30m', '1d']) {
      await range(page, word);
      const { users } = await same(page, shop, `last=${word}`);
      if (word === '7d') assert.ok(users.lower < users.value && users.value < users.upper, 'an estimate, with its bounds');
    }
    await showDates(page, BEFORE, YESTERDAY);
    await same(page, shop, days(BEFORE, YESTERDAY));
  });

  test('the chart has a bucket for what the API has one for', async () => {
    const page = await open(shop);
    for (const [word, granularity] of [['1d', '1h'], ['7d', '1h'], ['30d', '1d'], ['30m', '1m']]) {
      await range(page, word);
      await until(`the buckets of ${word}`, async () => {
        const { results } = await stage.ask(shop, `metric=users&metric=events&metric=page_views&granularity=${granularity}&last=${word}`);
        const expected = results.map(({ time, values }) => [time, ...['users', 'events', 'page_views'].map((name) => String(values[name].value))].join());
        const found = (await csv(page, 'events')).records.filter(([, , events]) => events !== '0').map((record) => record.join());
        return found.join('\n') === expected.join('\n') || `${found} instead of ${expected}`;
      });
    }
    await page.click('[data-action=table]');
    const buckets = (await csv(page, 'events')).records.length;
    assert.equal(await page.locator('[data-part=table] tr').count(), buckets + 1);
  });

  test('late data arrives, and what is shown is right again', async () => {
    const client = await stage.client('late');
    await stage.send(client, events('now', 100, (i) => Date.now() - i * 100));
    const page = await open(client);
    await range(page, '30m');
    const before = await same(page, client, 'last=30m');
    await stage.send(client, events('late', 50, (i) => Date.now() - 20 * MINUTE - i * 1_000));
    await until('they are shown', async () => (await shown(page)).events[0] === before.events[0] + 50);
    await same(page, client, 'last=30m');
    assert.equal((await stage.counts(client, '', 'received:late'))[''], 50);
  });

  test('a range is compared with the one before', async () => {
    const page = await open(shop);
    await showDates(page, YESTERDAY, YESTERDAY);
    const then = await same(page, shop, days(YESTERDAY, YESTERDAY));
    const before = await asked(shop, days(BEFORE, BEFORE));
    assert.deepEqual([then.events[0], before.events[0]], [1_500, 1_200]);
    await until('+25 %', async () => (await page.textContent('[data-part=events-change]')).includes('▲ 25%'));
    const percent = Math.round((100 * (then.users.value - before.users.value)) / before.users.value);
    assert.match(await page.textContent('[data-panel=users] [data-part=change]'), new RegExp(`▲ ${percent}%`));
  });

  test('a file has what is shown, and the rows beyond', async () => {
    const page = await open(shop);
    await showDates(page, YESTERDAY, YESTERDAY);
    const figures = await same(page, shop, days(YESTERDAY, YESTERDAY));
    for (const [panel, dimension] of Object.entries(GROUPS)) {
      const { name, records } = await csv(page, panel);
      // All rows, also those that aren't shown.
      const { results } = await stage.ask(shop, `metric=${ranked(panel)}&group_by=${dimension}&limit=1000&${days(YESTERDAY, YESTERDAY)}`);
      assert.equal(name, `shop-${panel}-${YESTERDAY}_${YESTERDAY}.csv`);
      // A value that a spreadsheet would take for a formula is made text.
      const expected = results.map(({ group, values }) => [group.replace(/^=/, "'="), String(values[ranked(panel)].value)]);
      assert.ok(expected.length >= figures[panel].length);
      assert.deepEqual(records.map(([value, number]) => [value, number]), expected);
    }
    const { users } = figures;
    assert.deepEqual((await csv(page, 'users')).records[0], ['users', ...[users.value, users.lower, users.upper].map(String)]);
    assert.deepEqual((await csv(page, 'revenue')).records.map(([currency, sum]) => [currency, Number(sum)]), figures.revenue);
  });

  test('a link opens the same view, and has no key', async () => {
    const page = await open(shop);
    await range(page, '7d');
    await page.click('[data-panel=pages] [data-action=open]');
    await page.waitForSelector('[data-panel=pages][data-open]');
    await until('all pages', async () => (await shown(page)).pages.length === 13);
    const link = page.url();
    assert.ok(!link.includes('rk_'), link);
    await page.reload();
    await connection(page, 'live');
    await until('still open', async () => (await shown(page)).pages.length === 13);

    const other = await open(null);
    await other.goto(link);
    await other.fill('[data-part=key]', shop.read_key);
    await other.keyboard.press('Enter');
    await connection(other, 'live');
    assert.equal(await other.getAttribute('[data-range="7d"]', 'aria-pressed'), 'true');
    await until('the same pages', async () => JSON.stringify((await shown(other)).pages) === JSON.stringify((await shown(page)).pages));
  });

  test('a wrong key is refused in words', async () => {
    const page = await open(null);
    for (const [key, words] of [['', /read key/], ['nonsense', /rk_/], [shop.write_key, /write key/], [`${shop.read_key.slice(0, -2)}aa`, /valid/]]) {
      await page.fill('[data-part=key]', key);
      await page.click('[data-part=key-form] button');
      await until(`words for ${key}`, async () => words.test(await page.textContent('[data-part=refusal]')));
      assert.ok(await page.isVisible('[data-part=key-form]'));
      assert.ok(!(await page.isVisible('[data-panel=active]')));
    }
    await page.fill('[data-part=key]', shop.read_key);
    await page.click('[data-part=key-form] button');
    await connection(page, 'live');
    await page.click('[data-action=sign-out]');
    await page.waitForSelector('[data-part=key-form]');
    assert.deepEqual(await page.evaluate(() => Object.entries(sessionStorage)), []);
  });

  test('before the first event there is help, and after it figures', async () => {
    const client = await stage.client('empty');
    const page = await open(client);
    await page.waitForSelector('[data-part=welcome]', { state: 'visible' });
    for (const panel of Object.keys(GROUPS)) await page.waitForSelector(`[data-panel=${panel}][data-state=empty]`);
    await stage.send(client, events('first', 4, () => Date.now()));
    await page.waitForSelector('[data-panel=pages][data-state=ready]');
    assert.ok(!(await page.isVisible('[data-part=welcome]')));
    await same(page, client, 'last=1d');
  });

  test('offline, it says so and keeps what it has; then it is right again', async () => {
    const client = await stage.client('offline');
    await stage.send(client, events('one', 10, () => Date.now()));
    const page = await open(client);
    const before = await same(page, client, 'last=1d');
    await page.context().setOffline(true);
    await connection(page, 'offline');
    await stage.send(client, events('two', 10, () => Date.now()));
    assert.deepEqual((await shown(page)).events, before.events);
    await page.context().setOffline(false);
    await connection(page, 'live');
    await same(page, client, 'last=1d');
  });

  test('numbers that change move nothing', async () => {
    const client = await stage.client('still');
    await stage.send(client, events('one', 40, () => Date.now()));
    const page = await open(client);
    await page.waitForSelector('[data-panel=pages][data-state=ready]');
    await same(page, client, 'last=1d');
    await sleep(1_000);
    await page.evaluate(() => {
      window.shifts = [];
      const name = ({ node, previousRect: from, currentRect: to }) => `${node?.outerHTML?.slice(0, 60)} ${from.x},${from.y} → ${to.x},${to.y}`;
      const shift = ({ value, sources }) => ({ value, what: sources.map(name) });
      new PerformanceObserver((list) => shifts.push(...list.getEntries().map(shift))).observe({ type: 'layout-shift' });
    });
    for (let i = 0; i < 5; i++) {
      await stage.send(client, events(`more-${i}`, 100, () => Date.now()));
      await sleep(400);
    }
    await same(page, client, 'last=1d');
    const shifts = await page.evaluate(() => shifts);
    assert.ok(shifts.reduce((sum, { value }) => sum + value, 0) < 0.01, JSON.stringify(shifts));
  });

  for (const [what, signedIn, fragment] of [['to sign in', false], ['before the first event', 'empty'], ['with figures', 'shop'], ['with a panel open', 'shop', 'open=pages']]) {
    test(`axe finds nothing serious ${what}, light and dark, on a desktop and a phone`, async () => {
      const client = signedIn === 'empty' ? await stage.client('nobody') : signedIn && shop;
      const page = await open(client, { fragment });
      if (client) await page.waitForSelector(`[data-panel=pages][data-state=${signedIn === 'empty' ? 'empty' : 'ready'}]`);
      await axeFindsNothing(page);
    }, { timeout: 180_000 });
  }

  test('all can be reached and done by keyboard', async () => {
    const page = await open(null);
    await page.keyboard.press('Tab');
    await page.keyboard.type(shop.read_key);
    await page.keyboard.press('Enter');
    await connection(page, 'live');
    await page.waitForSelector('[data-panel=pages][data-state=ready]');
    const focusable = await page.evaluate(() => {
      const all = [...document.querySelectorAll('button, a[href], input, select, [tabindex="0"]')];
      const seen = all.filter((element) => element.checkVisibility({ checkVisibilityCSS: true }) && element.getClientRects().length && !element.disabled);
      seen.forEach((element, i) => (element.dataset.reach = i));
      return seen.length;
    });
    assert.ok(focusable > 15, `${focusable} things to reach`);
    await page.evaluate(() => document.activeElement.blur());
    const reached = new Set();
    for (let i = 0; i < focusable + 5; i++) {
      await page.keyboard.press('Tab');
      const found = await page.evaluate(() => {
        const element = document.activeElement;
        const { outlineStyle, boxShadow } = getComputedStyle(element);
        return { reach: element.dataset.reach, name: element.outerHTML.slice(0, 90), visible: outlineStyle !== 'none' || boxShadow !== 'none' };
      });
      if (found.reach !== undefined) {
        reached.add(found.reach);
        assert.ok(found.visible, `focus can be seen on ${found.name}`);
      }
    }
    assert.equal(reached.size, focusable);
    await page.focus('[data-range="30d"]');
    await page.keyboard.press('Enter');
    await same(page, shop, 'last=30d');
    await page.focus('[data-panel=pages] [data-action=open]');
    await page.keyboard.press('Space');
    await page.waitForSelector('[data-panel=pages][data-open]');
    await page.focus('[data-part=chart]');
    await page.keyboard.press('ArrowLeft');
    await page.waitForSelector('[data-part=reading]', { state: 'visible' });
  });

  test('the API is described on a page without a script', async () => {
    const page = await open(null, { path: '/docs' });
    assert.equal(await page.textContent('#metrics'), 'GET /api/v1/metrics');
    assert.equal(await page.locator('script').count(), 0);
    // It has its looks, and each link leads somewhere.
    assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector('table')).borderCollapse), 'collapse');
    assert.deepEqual(await page.evaluate(() => [...document.querySelectorAll('a[href^="#"]')].map((a) => a.hash.slice(1)).filter((id) => !document.getElementById(id))), []);
    await axeFindsNothing(page);
  });

  test('nothing but its own files may run', async () => {
    const answer = await fetch(`${stage.aggregator}/`);
    const policy = answer.headers.get('content-security-policy');
    assert.match(policy, /default-src 'none'/);
    assert.ok(!/unsafe-inline|'unsafe-eval'|https?:/.test(policy), policy);
  });
});

test('an aggregator that is killed and comes back: the state is shown, then the figures are right', async () => {
  const client = await stage.client('killed');
  await stage.send(client, events('one', 60, () => Date.now()));
  const page = await open(client);
  await same(page, client, 'last=1d');
  await stage.kill('aggregator-eu');
  await connection(page, 'reconnecting');
  await page.waitForSelector('[data-panel=pages][data-state=reconnecting]');
  await stage.send(client, events('two', 60, () => Date.now()));
  await stage.start('aggregator-eu');
  await connection(page, 'live');
  await page.waitForSelector('[data-panel=pages][data-state=ready]');
  await until('all is counted', async () => (await stage.counts(client))[''] === 120);
  await same(page, client, 'last=1d');
});

test('no console complained, and nothing else was asked', () => assert.deepEqual(complaints, []));
