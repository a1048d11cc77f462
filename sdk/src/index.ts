import { start } from "./core.js";
import type { Catchment, Options } from "./types.js";

export type { Auto, Catchment, Options, Properties } from "./types.js";

const nothing = (): void => {};

/** Starts to count; on a server, and on localhost unless told otherwise, the calls do nothing. */
export function init(options: Options): Catchment {
  const started = typeof window === "undefined" ? undefined : start(options, () => import("./extras.js"));
  started?.[1]();
  return started?.[0] ?? { page: nothing, track: nothing, identify: nothing, consent: nothing, revenue: nothing };
}
