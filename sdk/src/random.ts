/** A random name of 14 characters, 64 bits. */
const half = (): string =>
  Array.from(crypto.getRandomValues(new Uint32Array(2)), (word) => word.toString(36).padStart(7, "0")).join("");

/** A random name of 28 characters, 128 bits. */
export const randomId = (): string => half() + half();

/** The name of a route: enough to spread, and short enough for an address. */
export const randomRoute = half;
