/** What is asked of `localStorage`. Tests bring one of their own. */
export type Store = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/**
 * What an act on the storage gives; nothing where the browser forbids it, which may throw at every touch, or it is full. All here
 * works without: then events wait in memory, and nobody gets an id.
 */
export function attempt<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch {}
  return;
}
