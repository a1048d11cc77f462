import type { Add } from "./extras.js";

/** Interactions that are remembered: the slowest. Of 50 more of them, one more is let off. */
const SLOWEST = 10;

type Entry = PerformanceEntry & { value?: number; hadRecentInput?: boolean; interactionId?: number };

/**
 * The web vitals of the page that was loaded, as https://web.dev/vitals defines them: `web_vital` with `lcp_ms`, `cls` and `inp_ms`,
 * as far as the browser measures them. They are told once, by what is given back.
 */
export function watchVitals(add: Add): () => void {
  const page = location.pathname;
  const observers: (() => void)[] = [];
  const observe = (type: string, take: (entry: Entry) => void): void => {
    if (!PerformanceObserver.supportedEntryTypes?.includes(type)) return;
    const observer = new PerformanceObserver((list) => list.getEntries().forEach(take));
    observer.observe({ type, buffered: true, durationThreshold: 40 } as PerformanceObserverInit);
    observers.push(() => observer.takeRecords().forEach(take));
  };

  // What is painted once the page was hidden says how long that lasted. Rendered ahead of a click, it loads from that click on.
  const paints: number[] = [];
  observe("largest-contentful-paint", ({ startTime }) => paints.push(startTime));
  const hiddenFirst = document.hidden && !(document as { prerendering?: boolean }).prerendering;
  const lcpOf = (): number | undefined => {
    const [load] = performance.getEntriesByType("navigation") as (PerformanceNavigationTiming & { activationStart?: number })[];
    const start = load?.activationStart ?? 0;
    const hidden = performance.getEntriesByType("visibility-state").find((entry) => entry.name === "hidden" && entry.startTime >= start);
    const hiddenAt = hidden?.startTime ?? (hiddenFirst ? 0 : Infinity);
    const last = paints.filter((at) => at < hiddenAt).pop();
    return last === undefined ? last : Math.max(0, last - start);
  };

  // Shifts less than 1 s apart, over at most 5 s, are one window; the worst window counts.
  let cls: number | undefined = PerformanceObserver.supportedEntryTypes?.includes("layout-shift") ? 0 : undefined;
  let windowSum = 0;
  let windowStart = 0;
  let lastShift = -Infinity;
  observe("layout-shift", ({ startTime, value = 0, hadRecentInput }) => {
    if (hadRecentInput) return;
    if (startTime - lastShift > 1000 || startTime - windowStart > 5000) {
      windowSum = 0;
      windowStart = startTime;
    }
    lastShift = startTime;
    windowSum += value;
    cls = Math.max(cls ?? 0, windowSum);
  });

  // An interaction takes as long as its slowest event.
  const interactions = new Set<number>();
  let slowest: { id: number; duration: number }[] = [];
  const interact = ({ interactionId: id, duration }: Entry): void => {
    if (!id) return;
    interactions.add(id);
    const known = slowest.find((one) => one.id === id);
    if (known) known.duration = Math.max(known.duration, duration);
    else slowest.push({ id, duration });
    slowest.sort((a, b) => b.duration - a.duration);
    slowest = slowest.slice(0, SLOWEST);
  };
  observe("first-input", interact);
  observe("event", interact);

  let told = false;
  return () => {
    if (told) return;
    told = true;
    for (const drain of observers) drain();
    const inp = slowest[Math.min(slowest.length - 1, Math.floor(interactions.size / 50))];
    const round = (value: number | undefined): number | undefined => (value === undefined ? value : Math.round(value));
    const vitals = { lcp_ms: round(lcpOf()), cls: cls && Math.round(cls * 1e4) / 1e4, inp_ms: round(inp?.duration) };
    if (Object.values(vitals).some((value) => value !== undefined)) add("web_vital", vitals, { page });
  };
}
