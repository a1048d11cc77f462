import { SESSION_IDLE_MS } from "./limits.js";
import type { Store } from "./queue.js";
import { randomId } from "./random.js";

/**
 * The ids of device and session, which exist only with consent: `<device> <session> <last seen>` under one name of the storage.
 * It is read for each event, so that consent given or withdrawn in one tab holds in all of them.
 */
export function openIdentity(store: Store, name: string) {
  const write = (...parts: (string | number)[]): void => {
    try {
      store?.setItem(name, parts.join(" "));
    } catch {
      // It is full: the session ends early.
    }
  };
  const read = (): string[] => (store?.getItem(name) ?? "").split(" ");

  return {
    consent(given: boolean): void {
      if (!given) store?.removeItem(name);
      else if (!read()[0]) write(randomId(), "", 0);
    },

    /** What an event says of who is there. */
    ids(): { device_id?: string; session_id?: string } {
      const [device_id, session, seen] = read();
      if (!device_id) return {};
      const now = Date.now();
      const session_id = now - +seen! < SESSION_IDLE_MS ? session! : randomId();
      write(device_id, session_id, now);
      return { device_id, session_id };
    },
  };
}
