// What people see of a dashboard with real events: screenshots in target/screenshots, and in docs/images if
// CATCHMENT_SCREENSHOTS is set.

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { Stage, browser, root, sleep, test, until } from './support.mjs';

const DAY = 86_400_000;
const VISITS = 8;
/** All of the page but its last row. */
const VIEWPORT = { width: 1_280, height: 1_340 };
const SCALE = 1.5;
/** The log knows no devices: each host is given one. Four of five come the day before, too. */
const DEVICES = ['desktop', 'desktop', 'desktop', 'mobile', 'mobile', 'tablet'];
const YESTERDAY = 0.8;

let stage, chromium;
before(async () => {
  stage = await Stage.start('--dashboard');
  chromium = await browser();
});

/** The bundled log's page views, the last of them now, and a day before some of the same again. */
async function history() {
  const log = gunzipSync(await readFile(join(root, 'tests/data/nasa-1995-08-01.ndjson.gz'))).toString().trim().split('\n');
  const views = log.map((line) => JSON.parse(line)).filter(({ event_type }) => event_type === 'page_view');
  const shift = Date.now() - Math.max(...views.map(({ timestamp }) => Date.parse(timestamp)));
  const hosts = new Map();
  return views.flatMap(({ event_id, user_id, timestamp, page, properties: { tld } }) => {
    if (!hosts.has(user_id)) hosts.set(user_id, (hosts.size * 0.618) % 1);
    const share = hosts.get(user_id);
    const country = { uk: 'GB', edu: 'US', gov: 'US', mil: 'US' }[tld] ?? (/^(?!ip$)[a-z]{2}$/.test(tld) ? tld.toUpperCase() : undefined);
    const event = { event_type: 'page_view', user_id, page, country, device: DEVICES[Math.floor(share * DEVICES.length)], category: page.split('/').slice(1, -1)[0] };
    const at = Date.parse(timestamp) + shift;
    return [at, ...(share < YESTERDAY ? [at - DAY] : [])].map((timestamp, day) => ({ ...event, event_id: `${event_id}-${day}`, timestamp }));
  });
}

/** A visit to the shop, by a link from elsewhere, that ends with a sale or not. */
async function visit(url, products, buys, referer) {
  const context = await chromium.newContext();
  const page = await context.newPage();
  await page.goto(`${url}/`, { referer });
  for (const product of products) {
    await page.goto(`${url}/products/${product}`);
    await page.click('article button');
  }
  if (buys) {
    await page.click('header a.cart');
    await page.click('text=Go to checkout');
    await page.fill('[name=name]', 'A visitor');
    await page.fill('[name=email]', 'visitor@shop.test');
    await page.fill('[name=address]', 'Here');
    await page.click('form.checkout button');
    await page.waitForSelector('h1:has-text("Thank you")');
  }
  await page.waitForTimeout(600);
  await context.close();
}

test('a dashboard with real events can be looked at', async () => {
  const past = await stage.client('larkfield', 'user', true);
  const live = await stage.client('larkfield', 'device');
  const events = await history();
  await stage.send(past, events);
  const { url } = await stage.shop(live.write_key);
  const goods = ['stoneware-mug', 'brass-pen', 'wool-blanket', 'watering-can', 'clamp-lamp', 'canvas-tote'];
  const from = ['search', 'news', 'search', 'letters'].map((name) => `https://${name}.example/`);
  for (let i = 0; i < VISITS; i++) await visit(url, goods.slice(i % 4, (i % 4) + 1 + (i % 3)), i % 2 === 0, from[i % from.length]);
  await until('all is counted', async () => (await stage.counts(live, '', 'page_views'))[''] > events.length * 0.5, 40_000);

  const images = {};
  for (const theme of ['light', 'dark']) {
    const context = await chromium.newContext({ viewport: VIEWPORT, deviceScaleFactor: SCALE, colorScheme: theme });
    const page = await context.newPage();
    await page.goto(`${stage.aggregator}/#key=${live.read_key}`);
    for (const panel of ['pages', 'countries', 'products', 'revenue']) await page.waitForSelector(`[data-panel=${panel}][data-state=ready]`);
    await sleep(1_500);
    images[theme] = await page.screenshot();
    await context.close();
  }
  const folders = [join(root, 'target/screenshots'), ...(process.env.CATCHMENT_SCREENSHOTS ? [join(root, 'docs/images')] : [])];
  for (const folder of folders) {
    await mkdir(folder, { recursive: true });
    for (const [theme, image] of Object.entries(images)) await writeFile(join(folder, `dashboard-${theme}.png`), image);
  }
  console.log(`screenshots are in ${folders.join(' and ')}`);
}, { timeout: 120_000 });
