import { openIdentity } from "./identity.js";
import { MEASURES_MAX, PATH_CHARS_MAX, VALUE_CHARS_MAX } from "./limits.js";
import { openQueue } from "./queue.js";
import { randomId, randomName } from "./random.js";
import { startSender } from "./sender.js";
import { attempt } from "./store.js";
import type { Catchment, Options, Properties } from "./types.js";

/** What is loaded only when it is used. */
export type Extras = typeof import("./extras.js");

/**
 * Counts this page: gives the calls and what begins to count page views, which comes after the calls that were made before;
 * nothing, and says why in the console, where the page isn't to be counted.
 */
export function start(
  { key, endpoint, auto = [], localhost, epoch = 1 }: Options,
  extras: () => Promise<Extras>,
): [Catchment, () => void] | undefined {
  if (!localhost && /^(|localhost|127\..*|\[::1])$/.test(location.hostname)) {
    console.info("Catchment: localhost needs data-localhost");
    return;
  }
  const store = (): Storage => localStorage;
  const prefix = "catchment " + key;
  const queue = openQueue(store, prefix);
  const identity = openIdentity(store, prefix);
  const routeName = randomName(2);
  /** The route of new events, under the epoch that was learned last, here or in another tab. */
  const routeOf = (): string => `${(epoch = identity.known() || epoch)}.${routeName}`;
  // An answer about another epoch than the newest, to an event that waited, would only lead back to where that one led from.
  const sender = startSender(queue, endpoint.replace(/\/?$/, "/v1/events?k=" + key), extras, (learned, route) => {
    if (learned && route === routeOf()) identity.ids((epoch = learned));
  });

  /** But under Global Privacy Control, which wants nobody told apart by an id. */
  const named = !(navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl;
  /** Nobody is known without one, as with null. */
  let user_id: string | null | undefined;
  let traits: Properties | undefined;

  const refuse = (what: string): undefined => console.warn("Catchment: not taken:", what) as undefined;
  const add = (event_type: string, properties?: Properties, origin?: object | false): void => {
    const id = randomId();
    // What a page gives may have no text: an object within itself, or a BigInt.
    const text = attempt(() =>
      JSON.stringify({
        event_id: id,
        event_type,
        timestamp: Date.now(),
        page: location.pathname.slice(0, PATH_CHARS_MAX),
        ...origin,
        user_id,
        ...(named && identity.ids()),
        properties: { ...traits, ...properties },
      }),
    );
    if (text && queue.add({ route: routeOf(), id, text })) sender.schedule();
    else refuse(event_type);
  };

  /** The path that was counted last: where only the query changes, or nothing, it is the same page. */
  let path: string | undefined;
  /** What is to be done before another page is shown. */
  let turn: (() => void) | undefined;
  const page = (properties?: Properties): void => {
    turn?.();
    // Who reloads, or goes back to it, has come before. The newer way to ask takes more words.
    const origin = path === undefined && !performance.navigation.type && originOf(document.referrer);
    path = location.pathname;
    add("page_view", properties, origin);
  };
  const navigated = (): void => {
    if (location.pathname !== path) page();
  };

  const begin = (): void => {
    const pages = !auto.includes("nopages");
    if (pages) {
      for (const name of ["pushState", "replaceState"] as const) {
        const change = history[name];
        history[name] = function (...state) {
          change.apply(this, state);
          navigated();
        };
      }
      addEventListener("popstate", navigated);
      // One that is rendered ahead of a click may never be viewed.
      if ((document as { prerendering?: boolean }).prerendering) {
        document.addEventListener("prerenderingchange", () => page(), { once: true });
      } else page();
    }
    queue.adopt(routeOf());
    sender.schedule();
    addEventListener("online", sender.online);
    addEventListener("pagehide", sender.leave);
    addEventListener("pageshow", ({ persisted }) => {
      // It comes back from the back/forward cache, and is viewed again.
      if (persisted) {
        sender.thaw();
        if (pages) page();
      }
    });
    // On the window, which this event reaches after the document: what the extras add as the page goes has been added.
    addEventListener("visibilitychange", () => document.hidden && sender.leave());
    if (auto.some((what) => what !== "nopages")) {
      extras().then(({ watch }) => (turn = watch(auto, add)), console.warn);
    }
  };

  const identify: Catchment["identify"] = (userId, properties) => {
    if (named) {
      user_id = userId;
      traits = properties;
    }
  };
  const consent = (given: boolean): void => identity.consent(given && named);
  if (!named) consent(false);
  return [
    {
      page,
      track: add,
      identify,
      consent,
      revenue(amount, currency, properties): void {
        const measure = "revenue_" + String(currency).toUpperCase();
        const told: Properties = { ...traits, ...properties };
        // Of too many, the edge takes the first by name, and revenue must be among them.
        let room = MEASURES_MAX;
        for (const name in told) if (typeof told[name] === "number" && --room < 1) told[name] = refuse(name);
        if (/^.{8}[A-Z]{3}$/.test(measure) && isFinite(amount)) add("revenue", { ...told, [measure]: +amount });
        else refuse("revenue");
      },
    },
    begin,
  ];
}

/** Where a visitor comes from: another site's host, and what the link to us says of its campaign, and of who sold the click. */
function originOf(referrer: string): object {
  const query = new URLSearchParams(location.search);
  const said = (name: string): string | undefined => query.get(name)?.slice(0, VALUE_CHARS_MAX);
  const bare = (host?: string): string | undefined => host?.replace(/^www\./, "");
  const host = bare(referrer.split("/")[2]);
  const entry = host !== bare(location.host) || undefined;
  return {
    entry,
    referrer: entry && host,
    utm_source: said("utm_source"),
    utm_medium: said("utm_medium"),
    utm_campaign: said("utm_campaign"),
    // gclid, msclkid, gbraid, li_fat_id, rdt_cid, igshid and others: the edge tells which it knows.
    click: /[?&](\w+(clk?|_fat_|dt_c|gsh|bra)id)=/.exec(location.search)?.[1],
  };
}
