import assert from "node:assert/strict";
import { test } from "node:test";
import { openQueue, sizeOf, EVENT_CHARS_MAX, QUEUE_EVENTS_MAX } from "../../target/sdk-test/parts.mjs";
import { Memory, forbidden, item, long } from "./support.mjs";

const PREFIX = "catchment wk_x";
const open = (store = new Memory()) => ({ store, queue: openQueue(() => store, PREFIX) });
const ids = (items) => items.map(({ id }) => id);

test("what is added is stored, comes out in order, and is gone once it is done with", () => {
  const { store, queue } = open();
  for (const id of ["a", "b", "c"]) assert.ok(queue.add(item(id)));
  assert.deepEqual(Object.keys(store), ["a", "b", "c"].map((id) => `${PREFIX} 1.here ${id}`));
  const batch = queue.take(1_000, 2);
  assert.deepEqual([ids(batch), queue.waits()], [["a", "b"], 1]);
  queue.release(batch);
  assert.deepEqual(ids(queue.take(1_000, 9)), ["c", "a", "b"], "what failed waits behind the others");
  queue.forget(batch);
  assert.deepEqual(Object.keys(store), [`${PREFIX} 1.here c`]);
  assert.equal(queue.waits(), 0);
});

test("a batch has one route, and as many bytes and events as are allowed", () => {
  const { queue } = open();
  for (const event of [item("a"), item("b", "1.there"), item("c"), item("d", "1.there")]) queue.add(event);
  assert.deepEqual(ids(queue.take(1_000, 9)), ["a", "c"]);
  assert.deepEqual(ids(queue.take(1_000, 9)), ["b", "d"]);
  assert.deepEqual(queue.take(1_000, 9), []);

  // "é" has two bytes, and each event a comma.
  const text = "é".repeat(10);
  assert.equal(sizeOf(text), 20);
  for (const id of ["a", "b", "c"]) queue.add(item(id, "1.here", text));
  assert.deepEqual(ids(queue.take(20, 9)), []);
  assert.deepEqual(ids(queue.take(41, 9)), ["a"]);
  assert.deepEqual(ids(queue.take(42, 9)), ["b", "c"]);
});

test("it has its bounds, and what is beyond is neither kept nor stored", () => {
  const { store, queue } = open();
  assert.ok(!queue.add(long(EVENT_CHARS_MAX + 1)));
  for (let i = 0; i < QUEUE_EVENTS_MAX; i++) assert.ok(queue.add(long(i ? 10 : EVENT_CHARS_MAX)));
  assert.ok(!queue.add(item("beyond")));
  assert.equal(Object.keys(store).length, QUEUE_EVENTS_MAX);
});

test("what others left is adopted under its own route, and only theirs", () => {
  const store = new Memory();
  const theirs = openQueue(() => store, PREFIX);
  theirs.add(item("lost", "1.there"));
  store.setItem("catchment wk_other 1.there x", "{}");
  store.setItem(PREFIX, "device session 0");
  store.setItem("cart", "[]");
  const { queue } = open(store);
  queue.add(item("own"));
  queue.adopt("1.here");
  const [[own], [lost]] = [queue.take(1_000, 9), queue.take(1_000, 9)];
  assert.deepEqual([own.id, lost.id, lost.route, queue.waits()], ["own", "lost", "1.there", 0]);
  assert.equal(lost.text, item("lost").text);
});

test("what another tab has an answer for isn't sent again", () => {
  const store = new Memory();
  const theirs = openQueue(() => store, PREFIX);
  const [first, second] = [item("first", "1.there"), item("second", "1.there")];
  theirs.add(first);
  theirs.add(second);
  const { queue } = open(store);
  queue.adopt("1.here");
  theirs.forget([first]);
  assert.deepEqual(ids(queue.take(1_000, 9)), ["second"]);
  assert.equal(queue.waits(), 0);
});

test("what nobody can hold any more is cleared away, so that the storage has a bound, too", () => {
  const store = new Memory();
  for (let i = 0; i < QUEUE_EVENTS_MAX + 50; i++) store.setItem(`${PREFIX} 1.there ${i}`, "{}");
  const { queue } = open(store);
  queue.adopt("1.here");
  assert.deepEqual([queue.waits(), Object.keys(store).length], [QUEUE_EVENTS_MAX, QUEUE_EVENTS_MAX]);
});

test("without storage, or with a full one, events wait in memory", () => {
  const full = new Memory();
  full.setItem = forbidden;
  for (const queue of [openQueue(forbidden, PREFIX), openQueue(() => full, PREFIX)]) {
    assert.ok(queue.add(item("a")));
    queue.adopt("1.here");
    const batch = queue.take(1_000, 9);
    assert.deepEqual(ids(batch), ["a"]);
    queue.forget(batch);
  }
});
