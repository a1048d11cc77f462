import { openIdentity } from "./identity.js";
import { PATH_CHARS_MAX, VALUE_CHARS_MAX } from "./limits.js";
import { openQueue, type Store } from "./queue.js";
import { randomId, randomRoute } from "./random.js";
import { startSender } from "./sender.js";
import type { Catchment, Options, Properties } from "./types.js";

/** What is loaded only when it is used. */
export type Extras = typeof import("./auto.js");

const said = new Set<string>();

/** Says once what a developer should know. */
const warn = (text: string): void => {
  if (!said.has(text)) console.warn("Catchment:", text);
  said.add(text);
};

/** Where browsers forbid it, even asking for the storage throws. */
const openStore = (): Store => {
  try {
    return localStorage;
  } catch {
    return;
  }
};

/**
 * Counts this page; `undefined`, with a reason in the console, where it isn't to be counted. `before` makes the calls that come
 * before the first page view.
 */
export function start(
  options: Options,
  extras: () => Promise<Extras>,
  before?: (catchment: Catchment) => void,
): Catchment | undefined {
  const { key, endpoint, auto = [] } = options;
  if (!options.localhost && /^(|localhost|127\..*|\[::1])$/.test(location.hostname)) {
    console.info("Catchment: localhost is not counted, unless you set data-localhost (or localhost: true).");
    return;
  }
  const store = openStore();
  const prefix = `catchment ${key} `;
  const queue = openQueue(store, prefix);
  const identity = openIdentity(store, prefix + "ids");
  const anonymous = (navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl;
  const routeName = randomRoute();
  let epoch = options.epoch || 1;
  let user: { user_id?: string } = {};
  let traits: Properties | undefined;
  const sender = startSender(queue, `${new URL("v1/events", endpoint)}?k=${key}`, warn, (present) => {
    epoch = present || epoch;
  });

  const add = (event_type: string, properties?: Properties, source?: object): void => {
    try {
      const id = randomId();
      const text = JSON.stringify({
        event_id: id,
        event_type,
        timestamp: Date.now(),
        page: location.pathname.slice(0, PATH_CHARS_MAX),
        ...source,
        ...user,
        ...(anonymous ? {} : identity.ids()),
        properties: { ...traits, ...properties },
      });
      if (!queue.add({ route: `${epoch}.${routeName}`, id, text })) warn("an event was dropped: there is no room for it");
      sender.schedule();
    } catch (error) {
      warn(`an event was dropped: ${error}`);
    }
  };

  /** The path that was counted last: who changes only the query, or nothing, views the same page. */
  let path: string | undefined;
  const page = (properties?: Properties): void => {
    const source = path === undefined && origin();
    path = location.pathname;
    add("page_view", properties, source || {});
  };
  const navigated = (): void => {
    if (location.pathname !== path) page();
  };

  const catchment: Catchment = {
    page,
    track: add,
    identify(userId, properties) {
      user = anonymous || userId === null ? {} : { user_id: userId };
      traits = anonymous || userId === null ? {} : properties;
    },
    consent(given) {
      identity.consent(given && !anonymous);
    },
    revenue(amount, currency, properties) {
      add("revenue", { ...properties, ["revenue_" + currency]: amount });
    },
  };
  if (anonymous) identity.consent(false);
  before?.(catchment);

  if (!auto.includes("nopages")) {
    for (const name of ["pushState", "replaceState"] as const) {
      const change = history[name];
      history[name] = function (...state) {
        change.apply(this, state);
        navigated();
      };
    }
    addEventListener("popstate", navigated);
    // A page that comes back from the back/forward cache is viewed again.
    addEventListener("pageshow", (event) => event.persisted && page());
    // One that is rendered ahead of a click may never be viewed.
    if ((document as { prerendering?: boolean }).prerendering) {
      document.addEventListener("prerenderingchange", () => page(), { once: true });
    } else page();
  }
  queue.adopt();
  sender.schedule();

  addEventListener("online", sender.online);
  addEventListener("pagehide", sender.leave);
  // On the window, which this event reaches after the document: what `auto` adds as the page goes has been added.
  addEventListener("visibilitychange", () => document.visibilityState === "hidden" && sender.leave());
  if (auto.some((what) => what !== "nopages")) {
    extras().then(({ watch }) => watch(auto, add), (error) => warn(`clicks and the like are not caught: ${error}`));
  }
  return catchment;
}

/** Where a visitor comes from: another site's host, and what the link to us says of its campaign. */
function origin(): object {
  const query = new URLSearchParams(location.search);
  const said = (name: string): string | undefined => query.get(name)?.slice(0, VALUE_CHARS_MAX) || undefined;
  const [, , referrer] = document.referrer.split("/");
  return {
    referrer: referrer === location.host ? undefined : referrer?.replace(/^www\./, ""),
    utm_source: said("utm_source"),
    utm_campaign: said("utm_campaign"),
  };
}
