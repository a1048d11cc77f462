import type { Auto, Properties } from "./types.js";

type Add = (type: string, properties?: Properties) => void;

/** Catches what was opted in for. Loaded only then. */
export function watch(auto: readonly Auto[], add: Add): void {
  const watchers = { clicks, forms, scroll, vitals: () => {}, nopages: () => {} };
  for (const what of auto) watchers[what]?.(add);
}

/** Runs once, as the page goes: before the sender does, which listens where this event arrives later. */
function onLeave(act: () => void): void {
  document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && act());
}

/** `data-category`, `data-product` and `data-plan` of an element say what it is about. */
function about(element: Element): Properties {
  const { category, product, plan } = (element as HTMLElement).dataset;
  return { category, product, plan };
}

/** Clicks on what can be clicked: `click`. */
function clicks(add: Add): void {
  addEventListener(
    "click",
    ({ target }) => {
      const element = (target as Element).closest?.("a,button,summary,[role=button],input[type=submit],[data-product]");
      if (element) add("click", about(element));
    },
    true,
  );
}

/** Forms that are sent: `form_submit`. Nothing of what was filled in is read. */
function forms(add: Add): void {
  addEventListener("submit", ({ target }) => add("form_submit", about(target as Element)), true);
}

/** How far down each page was seen, in percent: `scroll` with `scroll_percent`, once, as the page is left. */
function scroll(add: Add): void {
  let deepest = 0;
  const measure = (): void => {
    const { scrollHeight } = document.documentElement;
    deepest = Math.max(deepest, Math.round((100 * (scrollY + innerHeight)) / scrollHeight));
  };
  measure();
  addEventListener("scroll", measure, { passive: true });
  let said = false;
  onLeave(() => {
    if (!said) add("scroll", { scroll_percent: Math.min(100, deepest) });
    said = true;
  });
}



