import { SESSION_IDLE_MS } from "./limits.js";
import { randomId } from "./random.js";
import { attempt, type Store } from "./store.js";

/**
 * The ids of device and session, which exist only with consent: `<device> <session> <last seen>` under one name of the storage.
 * It is read for each event, so that what is consented to in one tab holds in all of them.
 */
export function openIdentity(store: () => Store, name: string) {
  const read = (): string[] => attempt(() => store().getItem(name)!.split(" ")) ?? [];
  const write = (device: string, session: string): void => {
    attempt(() => store().setItem(name, `${device} ${session} ${Date.now()}`));
  };

  return {
    /** Gives ids, or takes them away. */
    consent(given: boolean): void {
      if (!given) attempt(() => store().removeItem(name));
      else if (!read()[0]) write(randomId(), randomId());
    },

    /** What an event says of who is there. */
    ids(): { device_id?: string; session_id?: string } {
      const [device_id, session, seen] = read();
      if (!device_id) return {};
      const session_id = Date.now() - +seen! < SESSION_IDLE_MS ? session! : randomId();
      write(device_id, session_id);
      return { device_id, session_id };
    },
  };
}
