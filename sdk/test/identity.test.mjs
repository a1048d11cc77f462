import assert from "node:assert/strict";
import { test } from "node:test";
import { openIdentity, randomName, SESSION_IDLE_MS } from "../../target/sdk-test/parts.mjs";
import { Memory, forbidden } from "./support.mjs";

const NAME = "catchment wk_x";

test("there are no ids before consent, and none after it is withdrawn", () => {
  const store = new Memory();
  const identity = openIdentity(() => store, NAME);
  assert.deepEqual([identity.ids(), Object.keys(store)], [{}, []]);
  identity.consent(true);
  const { device_id, session_id } = identity.ids();
  assert.match(device_id, /^[0-9a-z]{28}$/);
  assert.match(session_id, /^[0-9a-z]{28}$/);
  identity.consent(true);
  assert.deepEqual(identity.ids(), { device_id, session_id }, "consent that is given again changes nothing");
  identity.consent(false);
  assert.deepEqual([identity.ids(), Object.keys(store)], [{}, []]);
});

test("a session ends when nothing happens for half an hour, the device stays", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 1_800_000_000_000 });
  const store = new Memory();
  const [tab, other] = [openIdentity(() => store, NAME), openIdentity(() => store, NAME)];
  tab.consent(true);
  const first = tab.ids();
  t.mock.timers.tick(SESSION_IDLE_MS - 1);
  assert.deepEqual(other.ids(), first, "tabs share it");
  t.mock.timers.tick(SESSION_IDLE_MS - 1);
  assert.deepEqual(tab.ids(), first, "whichever was used last");
  t.mock.timers.tick(SESSION_IDLE_MS);
  const second = tab.ids();
  assert.equal(second.device_id, first.device_id);
  assert.notEqual(second.session_id, first.session_id);
});

test("the epoch that was learned is kept with the ids, in all tabs, for as long as the session", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 1_800_000_000_000 });
  const store = new Memory();
  const [tab, other] = [openIdentity(() => store, NAME), openIdentity(() => store, NAME)];
  tab.ids(16_777_217);
  assert.deepEqual([tab.known() || "none", Object.keys(store)], ["none", []], "not without consent");
  tab.consent(true);
  assert.equal(tab.known() || "none", "none");
  tab.ids(16_777_217);
  assert.equal(other.known(), 16_777_217);
  t.mock.timers.tick(SESSION_IDLE_MS - 1);
  other.ids();
  t.mock.timers.tick(SESSION_IDLE_MS - 1);
  assert.equal(tab.known(), 16_777_217);
  t.mock.timers.tick(1);
  assert.equal(tab.known() || "none", "none");
  tab.ids();
  assert.equal(tab.known() || "none", "none", "nor does it come back with the next session");
});

test("where nothing can be stored, nobody has an id", () => {
  const identity = openIdentity(forbidden, NAME);
  identity.consent(true);
  assert.deepEqual(identity.ids(), {});
  identity.consent(false);
});

test("names are a route's name, and differ", () => {
  const names = Array.from({ length: 1_000 }, () => randomName(2));
  assert.ok(names.every((name) => /^[0-9a-z]{14}$/.test(name)));
  assert.equal(new Set(names).size, 1_000);
});
