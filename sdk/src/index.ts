import { start } from "./core.js";
import type { Catchment, Options } from "./types.js";

export type { Auto, Catchment, Options, Properties } from "./types.js";

/** Who starts to count twice, as components and reloaded modules do, counts once. */
const running = new Map<string, Catchment>();
const nothing = (): void => {};

/** Starts to count; on a server, and on localhost unless told otherwise, the calls do nothing. */
export function init(options: Options): Catchment {
  const known = running.get(options.key);
  if (known) return known;
  const started = typeof window === "undefined" ? undefined : start(options, () => import("./extras.js"));
  if (started) running.set(options.key, started[0]);
  started?.[1]();
  return started?.[0] ?? { page: nothing, track: nothing, identify: nothing, consent: nothing, revenue: nothing };
}
