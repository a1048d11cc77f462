// A click in the shop, until an open dashboard has painted it.

import assert from 'node:assert/strict';
import { before } from 'node:test';
import { Stage, browser, random, sleep, test, until } from './support.mjs';

const CLICKS = 200;
/** A click waits for nothing but the one before it, so that slow answers make no pauses. */
const PAUSE_MS = [50, 250];
const PAINTED_P99_MS = 1_000;

let stage, chromium;
before(async () => {
  stage = await Stage.start('--dashboard');
  chromium = await browser();
});

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)];

test('200 clicks in the shop are painted on the dashboard within a second', async () => {
  const chance = random();
  const client = await stage.client('painted');
  const { url } = await stage.shop(client.write_key);
  // A window each, side by side: a browser lets what nobody sees rest.
  const [shop, dashboard] = [await chromium.newPage(), await chromium.newPage()];
  await dashboard.goto(`${stage.aggregator}/#key=${client.read_key}`);
  await dashboard.waitForSelector('[data-connection=live]');
  await shop.goto(`${url}/products/brass-pen`);
  await dashboard.waitForSelector('[data-panel=products] [data-row=brass-pen]');

  // Both write down times of one clock: what was clicked, and each frame that began after a new number was painted.
  await shop.evaluate(() => {
    window.clicks = [];
    addEventListener('click', (event) => clicks.push(performance.timeOrigin + event.timeStamp), true);
  });
  await dashboard.evaluate(() => {
    const figure = document.querySelector('[data-panel=products] [data-row=brass-pen] [data-value]');
    window.painted = [{ value: Number(figure.dataset.value), at: 0 }];
    new MutationObserver(() => {
      const value = Number(figure.dataset.value);
      requestAnimationFrame(() => painted.push({ value, at: performance.timeOrigin + performance.now() }));
    }).observe(figure, { attributeFilter: ['data-value'] });
  });
  const button = await shop.locator('button[data-product=brass-pen]').boundingBox();
  const round = async () => {
    await shop.evaluate(() => void (window.clicks = []));
    const first = await dashboard.evaluate(() => (painted = [painted.at(-1)])[0].value);
    // One click is two events: the click itself, and what the shop tracks.
    const clicked = (n) => first + 2 * n;
    for (let i = 0; i < CLICKS; i++) {
      await shop.mouse.click(button.x + 20, button.y + button.height / 2);
      await sleep(PAUSE_MS[0] + chance() * (PAUSE_MS[1] - PAUSE_MS[0]));
    }
    await until('the last click is painted', async () => (await dashboard.evaluate(() => painted.at(-1).value)) === clicked(CLICKS));
    const [clicks, frames] = [await shop.evaluate(() => clicks), await dashboard.evaluate(() => painted)];
    assert.equal(clicks.length, CLICKS);
    const times = clicks.map((at, i) => frames.find(({ value }) => value >= clicked(i + 1)).at - at).sort((a, b) => a - b);
    assert.ok(times[0] > 0, 'nothing is painted before it is clicked');
    const [p50, p99, most] = [quantile(times, 0.5), quantile(times, 0.99), times.at(-1)].map(Math.round);
    const slow = times.filter((ms) => ms >= PAINTED_P99_MS).length;
    console.log(`click to paint, ${CLICKS} clicks: p50 ${p50} ms, p99 ${p99} ms, at most ${most} ms; ${slow} took a second or more`);
    return p99;
  };
  // A machine that does other work stalls now and then, for longer than a second: then, once more.
  const p99 = await round();
  assert.ok(p99 < PAINTED_P99_MS || (await round()) < PAINTED_P99_MS, 'p99 is under a second');
}, { timeout: 240_000 });
