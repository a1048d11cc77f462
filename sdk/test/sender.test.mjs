import assert from "node:assert/strict";
import { test } from "node:test";
import * as parts from "../../target/sdk-test/parts.mjs";
import { Memory, edge, item, long, until } from "./support.mjs";

const { backoffMs, openQueue, startSender, BACKOFF_MS_MAX, REQUEST_BYTES_MAX, REQUEST_EVENTS_MAX } = parts;

/** A sender to an edge that answers so; `said` is what it warned of. */
async function start(t, answer, extras = async () => parts) {
  const server = await edge(answer);
  t.after(server.close);
  const { mock } = t.mock.method(console, "warn", () => {});
  const said = () => mock.calls.map(({ arguments: [, text] }) => text);
  const queue = openQueue(() => store, "catchment wk_x");
  const store = new Memory();
  const epochs = [];
  const sender = startSender(queue, server.url, extras, (epoch, route) => epoch && epochs.push([epoch, route]));
  const add = (...items) => {
    for (const one of items) queue.add(one);
    sender.schedule();
  };
  const empty = () => until(() => Object.keys(store).length === 0);
  return { seen: server.seen, said, queue, store, epochs, sender, add, empty };
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

test("waits double up to a bound, and differ", () => {
  assert.deepEqual([1, 2, 3, 6].map((failures) => backoffMs(failures, 0.5)), [1_000, 2_000, 4_000, 32_000]);
  assert.equal(backoffMs(1, 0), 500);
  for (const failures of [7, 50, 5_000]) assert.equal(backoffMs(failures, 0.5), BACKOFF_MS_MAX);
  assert.notEqual(backoffMs(1), backoffMs(1));
});

test("the first event goes at once, the others as often as the edge says", async (t) => {
  const { seen, add, empty, epochs } = await start(t, () => ({ body: { flush_ms: 1_500, epoch: 3 } }));
  const before = performance.now();
  add(item("a"), item("b"));
  await empty();
  assert.ok(seen[0].at - before < 1_000, `${seen[0].at - before} ms`);
  for (const id of ["c", "d", "e"]) {
    add(item(id));
    await sleep(10);
  }
  await empty();
  assert.deepEqual(seen.map(({ ids }) => ids), [["a", "b"], ["c", "d", "e"]]);
  assert.ok(seen[1].at - seen[0].at >= 700, `${seen[1].at - seen[0].at} ms`);
  assert.deepEqual(epochs, [[3, "1.here"], [3, "1.here"]]);
  assert.match(seen[0].text, /^\{"sent_at":\d{13},"events":\[\{.*\},\{.*\}\]\}$/);
});

test("one request at a time, each within its bytes and of one route", async (t) => {
  let now = 0;
  let most = 0;
  const { seen, add, empty } = await start(t, async () => {
    most = Math.max(most, ++now);
    await sleep(30);
    now--;
  });
  add(...Array.from({ length: 40 }, () => long(3_900)), item("other", "1.there"));
  await empty();
  assert.equal(most, 1);
  assert.ok(seen.length === 4 && seen.every(({ bytes }) => bytes <= REQUEST_BYTES_MAX + 100), `${seen.map(({ bytes }) => bytes)}`);
  assert.deepEqual(seen.map(({ route }) => route), ["1.here", "1.here", "1.here", "1.there"]);
});

test("what fails is sent again as it was: same ids, same route", async (t) => {
  const failures = { 1: { status: 0 }, 2: { status: 503 } };
  const { seen, add, empty } = await start(t, (_, n) => failures[n]);
  add(item("a"), item("b"));
  await until(() => seen.length === 1);
  add(item("c"));
  await empty();
  assert.deepEqual(seen.map(({ ids }) => ids.sort()), [["a", "b"], ["a", "b", "c"], ["a", "b", "c"]]);
  assert.equal(new Set(seen.map(({ route }) => route)).size, 1);
  assert.ok(seen[1].at - seen[0].at >= 490 && seen[2].at - seen[1].at >= 990);
});

test("the edge's Retry-After is kept, whoever comes back and whatever goes", async (t) => {
  const { seen, add, empty, sender } = await start(t, (_, n) => n === 1 && { status: 429, headers: { "retry-after": "2" } });
  add(item("a"));
  await until(() => seen.length === 1);
  await sleep(50);
  sender.online();
  sender.leave();
  await empty();
  assert.equal(seen.length, 2);
  assert.ok(seen[1].at - seen[0].at >= 1_990, `${seen[1].at - seen[0].at} ms`);
});

test("a 429 of the edge's own is waited out, and nobody judges its events", async (t) => {
  const refusal = { status: 429, headers: { "retry-after": "1" }, body: { error: "quota", detail: "too many events" } };
  const judged = t.mock.fn(() => Promise.reject(new Error("no judge")));
  const server = await start(t, (_, n) => n === 1 && refusal, judged);
  server.add(item("a"), item("b"));
  await server.empty();
  assert.deepEqual(server.seen.map(({ ids }) => ids), [["a", "b"], ["a", "b"]]);
  assert.ok(server.seen[1].at - server.seen[0].at >= 950);
  assert.equal(judged.mock.callCount(), 0);
});

test("a Retry-After that can't be understood is none", async (t) => {
  const headers = { "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT" };
  const { seen, add, empty } = await start(t, (_, n) => n === 1 && { status: 503, headers });
  add(item("a"));
  await empty();
  assert.equal(seen.length, 2);
  assert.ok(seen[1].at - seen[0].at >= 400, `${seen[1].at - seen[0].at} ms`);
});

test("a network that is back ends the wait", async (t) => {
  const { seen, add, empty, sender } = await start(t, (_, n) => n < 4 && { status: 0 });
  add(item("a"));
  for (const n of [1, 2, 3]) {
    await until(() => seen.length === n);
    await sleep(30);
    sender.online();
  }
  await empty();
  // Without it, three waits take 3.5 s at least.
  assert.ok(seen[3].at - seen[0].at < 3_000, `${seen[3].at - seen[0].at} ms`);
});

test("one event that can't be read doesn't take others with it", async (t) => {
  const { seen, said, add, empty } = await start(t, ({ ids }) => ids.includes("bad") && { status: 400, body: { error: "malformed", detail: "…" } });
  const good = Array.from({ length: 20 }, (_, i) => item(`good-${i}`));
  add(...good.slice(0, 13), item("bad"), ...good.slice(13));
  await empty();
  const taken = seen.filter(({ ids }) => !ids.includes("bad")).flatMap(({ ids }) => ids);
  assert.deepEqual(taken.sort(), good.map(({ id }) => id).sort());
  assert.deepEqual(said(), ["events were refused, and dropped: malformed"]);
  assert.ok(seen.length <= 20, `${seen.length} requests`);
});

test("what can't get better is dropped, and said once", async (t) => {
  const { seen, said, add, empty } = await start(t, () => ({ status: 401, body: { error: "key", detail: "…" } }));
  add(item("a"), item("b", "1.there"));
  await empty();
  assert.deepEqual(seen.map(({ ids }) => ids), [["a"], ["b"]]);
  assert.deepEqual(said(), ["events were refused, and dropped: key"]);
});

test("nobody but the edge condemns events", async (t) => {
  const answers = {
    1: { status: 404, body: "<title>Back soon</title>" },
    2: { status: 403, body: { error: "forbidden" } },
    3: { status: 404, body: { error: "not_found", detail: "there is nothing here" } },
  };
  const { seen, add, empty, sender } = await start(t, (_, n) => answers[n]);
  add(item("a"));
  for (const n of [1, 2, 3]) {
    await until(() => seen.length === n);
    await sleep(50);
    sender.online();
  }
  await empty();
  assert.deepEqual(seen.map(({ ids }) => ids), Array(4).fill(["a"]));
});

test("a shard that is sick doesn't keep events from the others", async (t) => {
  let sick = true;
  const { seen, add, store, empty, sender } = await start(t, ({ route }) => sick && route === "1.sick" && { status: 503 });
  add(item("a", "1.sick"), item("b", "1.well"));
  await until(() => seen.length === 1);
  await sleep(50);
  sender.online();
  await until(() => Object.keys(store).length === 1);
  assert.deepEqual(seen.slice(0, 2).map(({ ids }) => ids), [["a"], ["b"]]);
  sick = false;
  await empty();
});

const unknownEpoch = { status: 400, body: { error: "unknown_epoch", detail: "the present one is 2", epoch: 2 } };
const present = ({ route }) => (route.startsWith("2.") ? undefined : unknownEpoch);

test("events of a former epoch go where their route leads by the present one", async (t) => {
  const { seen, said, add, empty, epochs } = await start(t, present);
  add(item("a"), item("b"), item("c", "1.there"));
  await empty();
  const taken = seen.filter(({ route }) => route.startsWith("2.")).map(({ route, ids }) => [route, ids]);
  assert.deepEqual(taken.sort(), [["2.here", ["a", "b"]], ["2.there", ["c"]]]);
  assert.deepEqual([epochs[0], said()], [[2, "1.here"], []]);
});

test("what may have been counted in a former epoch isn't counted in another", async (t) => {
  const { seen, said, store, queue, add, empty, sender } = await start(t, (post, n) => (n === 1 ? { status: 0 } : present(post)));
  store.setItem("catchment wk_x 1.gone left", item("left").text);
  add(item("tried"));
  await until(() => seen.length === 1);
  await sleep(50);
  queue.adopt("1.here");
  add(item("new"));
  sender.online();
  await empty();
  assert.deepEqual(seen.filter(({ route }) => route.startsWith("2.")).map(({ ids }) => ids), [["new"]]);
  assert.deepEqual(said(), ["events were refused, and dropped: unknown_epoch"]);
});

test("what was under way as its epoch ended isn't counted in another", async (t) => {
  const ended = (ended_ms_ago) => ({ status: 400, body: { ...unknownEpoch.body, ended_ms_ago } });
  const { seen, add, empty, sender } = await start(t, (post, n) => present(post) && ended(n === 1 ? 0 : 3_600_000));
  add(item("caught"));
  await until(() => seen.length === 1);
  await sleep(50);
  add(item("new"));
  sender.online();
  await empty();
  assert.deepEqual(seen.filter(({ route }) => route.startsWith("2.")).map(({ ids }) => ids), [["new"]]);
});

test("where what judges can't be loaded, refused events don't keep back the others", async (t) => {
  const blocked = () => Promise.reject(new TypeError("Failed to fetch dynamically imported module"));
  const { seen, add, empty } = await start(t, (_, n) => n === 1 && { status: 400, body: { error: "malformed", detail: "…" } }, blocked);
  add(item("a"));
  await until(() => seen.length === 1);
  add(item("b", "1.there"));
  await empty();
  assert.deepEqual(seen.map(({ ids }) => ids), [["a"], ["b"]]);
});

test("why an event was rejected is said once for each reason", async (t) => {
  const rejected = [{ index: 0, event_id: "a", reason: "too_late" }, { index: 1, event_id: "b", reason: "too_late" }];
  const { said, add, empty } = await start(t, () => ({ body: { flush_ms: 20, rejected } }));
  add(item("a"), item("b"));
  await empty();
  await until(() => said().length > 0);
  add(item("c"));
  await empty();
  await sleep(50);
  assert.deepEqual(said(), ["an event was rejected: too_late"]);
});

test("an answer that isn't the edge's is none", async (t) => {
  const answers = { 1: { status: 200, body: "<title>Sign in to the hotel</title>" }, 2: { body: "null" } };
  const { seen, add, empty } = await start(t, (_, n) => answers[n]);
  add(item("a"));
  await empty();
  assert.equal(seen.length, 2);
});

test("as the page goes, what fits goes along; what is under way isn't sent twice; the rest stays", async (t) => {
  let release;
  const released = new Promise((resolve) => (release = resolve));
  const { seen, store, add, empty, sender } = await start(t, () => released);
  add(item("first"));
  await until(() => seen.length === 1);
  for (let i = 0; i < 4; i++) add(item(`there-${i}`, "1.there"));
  add(...Array.from({ length: 40 }, () => long(3_900)));
  sender.leave();
  await until(() => seen.length === 3);
  await sleep(50);
  assert.deepEqual(seen.map(({ ids }) => ids.length), [1, 4, 0]);
  assert.ok(seen.reduce((sum, { bytes }) => sum + bytes, 0) <= 64 * 1024);
  assert.equal(Object.keys(store).length, 45);
  release();
  await empty();
  assert.equal(seen.flatMap(({ ids }) => ids).length, 5);
});

test("a page that was frozen sends again what it has no answer for", async (t) => {
  const { seen, add, empty, sender } = await start(t, (_, n) => n === 1 && new Promise(() => {}));
  add(item("a"));
  await until(() => seen.length === 1);
  add(item("b"));
  sender.thaw();
  await empty();
  assert.deepEqual(seen.map(({ ids }) => ids), [["a"], ["b", "a"]]);
  assert.ok(seen[1].at - seen[0].at < 10_000, `${seen[1].at - seen[0].at} ms`);
});

test("more events than the edge takes at once are cut", () => {
  const queue = openQueue(() => new Memory(), "catchment wk_x");
  for (let i = 0; i < 900; i++) queue.add(item(`e-${i}`));
  assert.ok(queue.take(REQUEST_BYTES_MAX, REQUEST_EVENTS_MAX).length <= 1_000);
  assert.equal(REQUEST_EVENTS_MAX, 1_000);
});
