import { REQUEST_EVENTS_MAX } from "./limits.js";
import type { Item, Queue } from "./queue.js";
import type { Answer } from "./sender.js";
import type { Auto, Properties } from "./types.js";
import { watchVitals } from "./vitals.js";

/** Has an event sent; `of` says of which page, if not of the one that is shown. */
export type Add = (type: string, properties?: Properties, of?: { page: string }) => void;

const nothing = (): void => {};

/** Catches what was opted in for. What it gives is to be called before another page is shown. */
export function watch(auto: readonly Auto[], add: Add): () => void {
  if (auto.includes("clicks")) watchClicks(add);
  if (auto.includes("forms")) watchForms(add);
  if (auto.includes("vitals")) onLeave(watchVitals(add));
  return auto.includes("scroll") ? watchScroll(add) : nothing;
}

/** Acts as the page goes, before the sender does: that listens where this event arrives later. */
function onLeave(act: () => void): void {
  document.addEventListener("visibilitychange", () => document.hidden && act());
}

/** What an element is about: its `data-category`, `data-product` and `data-plan`. */
function about(target: EventTarget | null): Properties {
  const { category, product, plan } = (target as HTMLElement).dataset;
  return { category, product, plan };
}

/** `click`: on what can be clicked. */
function watchClicks(add: Add): void {
  const clickable = "a, button, summary, [role=button], [type=submit], [type=button], [data-product]";
  const click = ({ target }: Event): void => {
    const element = target instanceof Element && target.closest(clickable);
    if (element) add("click", about(element));
  };
  // As the first to hear of it: what a page does with a click may well be to go.
  addEventListener("click", click, true);
}

/** `form_submit`: nothing of what was filled in is read. */
function watchForms(add: Add): void {
  addEventListener("submit", ({ target }) => add("form_submit", about(target)), true);
}

/** `scroll`, once for each page as it is left: `scroll_percent` is how far down it was seen. */
function watchScroll(add: Add): () => void {
  let page = location.pathname;
  let told = false;
  let deepest = 0;
  let height = 1;
  const measure = (): void => {
    deepest = Math.max(deepest, scrollY + innerHeight);
    height = document.documentElement.scrollHeight;
  };
  const tell = (): void => {
    if (!told) add("scroll", { scroll_percent: Math.min(100, Math.round((100 * deepest) / height)) }, { page });
    told = true;
  };
  addEventListener("scroll", measure, { passive: true });
  // Also of what grows as it loads. This measures at once, too.
  new ResizeObserver(measure).observe(document.documentElement);
  onLeave(() => {
    measure();
    tell();
  });
  return () => {
    // Unmeasured: what is shown by now may be the next page.
    tell();
    page = location.pathname;
    told = false;
    deepest = 0;
    setTimeout(measure);
  };
}

const said = new Set<string>();

/** Says once what a developer should know. */
function warn(text: string): void {
  if (!said.has(text)) console.warn("Catchment:", text);
  said.add(text);
}

/** Says why the edge didn't count some events. */
export function explain(rejected: NonNullable<Answer["rejected"]>): void {
  for (const { reason } of rejected) warn(`an event was rejected: ${reason}`);
}

/**
 * What becomes of a batch that was sent at a time and that the edge refused: the number of events to try at once from now on, for one that can't be read must not
 * take others with it. Where they may be taken later, it throws.
 */
export function judge(batch: Item[], { error = "", epoch, ended_ms_ago }: Answer, queue: Queue, sentAt: number): number {
  // Sent before its epoch ended: over a kept connection that breaks, browsers send a request twice by themselves, and only the second
  // may have come too late.
  if (Date.now() - ended_ms_ago! >= sentAt) throw error;
  const read = !/^(malformed|not_utf8|too_large|too_many_events)$/.test(error);
  if (!read && batch.length > 1) return batch.length >> 1;
  const moved = error === "unknown_epoch" && epoch ? move(batch, epoch, queue) : 0;
  if (!moved && read && !/^(key|route|unknown_epoch)$/.test(error)) {
    warn(`the edge refuses events, which wait: ${error}`);
    throw error;
  }
  if (batch[0]) warn(`events were refused, and dropped: ${error}`);
  queue.forget(batch.splice(0));
  // While a new epoch spreads, the next answer may be of the old one.
  if (moved) throw error;
  return read ? REQUEST_EVENTS_MAX : 1;
}

/**
 * Takes out of a batch what can go to where its route leads by another epoch, has it wait there, and gives how many. What may have
 * been counted at its former place isn't known at the new one: such an event stays behind, for none is counted twice.
 */
function move(batch: Item[], epoch: number, queue: Queue): number {
  const movable = batch.filter(({ tried, adopted }) => !tried && !adopted);
  for (const item of movable) {
    // Stored anew first: who ends in between leaves an event that is dropped later, not none.
    queue.add({ ...item, route: item.route.replace(/^\d+/, `${epoch}`) });
    queue.forget([item]);
    batch.splice(batch.indexOf(item), 1);
  }
  return movable.length;
}
