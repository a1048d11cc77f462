/** What is said about an event: `category`, `product` or `plan` to group by, and numbers to summarise. */
export type Properties = Record<string, string | number | boolean | null | undefined>;

/** What is caught without a call. `nopages` is the absence of the only one that is on by default. */
export type Auto = "clicks" | "forms" | "scroll" | "vitals" | "nopages";

/** Where events go, and as whose. */
export interface Options {
  /** The site's write key, `wk_…`. It is public. */
  key: string;
  /** The folder of the edge, such as `https://edge.example.com` or the site's own `/stats`. */
  endpoint: string;
  /** What is caught by itself beside page views. */
  auto?: readonly Auto[] | undefined;
  /** Counts pages of localhost and of files, too. */
  localhost?: boolean;
  /** The placement's epoch until an answer of the edge tells it: 1. */
  epoch?: number;
}

/** The calls. None of them throws, and none waits for the network. */
export interface Catchment {
  /** A page was viewed; only needed where page views aren't counted by themselves. */
  page(properties?: Properties): void;
  /** Something happened. */
  track(name: string, properties?: Properties): void;
  /** Who is there, for the events that follow on this page, and what goes with each of them; `null` is nobody known. */
  identify(userId: string | null, properties?: Properties): void;
  /** Allows an id of the device and of the session to be stored, or removes both. */
  consent(given: boolean): void;
  /** Money came in: 12.5, "EUR". */
  revenue(amount: number, currency: string, properties?: Properties): void;
}
