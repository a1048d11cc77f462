import { SESSION_IDLE_MS } from "./limits.js";
import { randomId } from "./random.js";
import { attempt, type Store } from "./store.js";

/**
 * What is kept only with consent: `<device> <session> <last seen> <epoch>` under one name of the storage, the ids of device and session,
 * and the epoch that the session has learned, or 0. It is read for each event, so that what is consented to in one tab holds in all of them.
 */
export function openIdentity(store: () => Store, name: string) {
  /** Device, session and epoch; the latter two while the session lasts. */
  const read = (): (string | undefined)[] => {
    const [device, session, seen, epoch] = attempt(() => store().getItem(name)!.split(" ")) ?? [];
    return Date.now() - +seen! < SESSION_IDLE_MS ? [device, session, epoch] : [device];
  };
  const write = (device: string, session = randomId(), epoch: unknown = 0): void => {
    attempt(() => store().setItem(name, `${device} ${session} ${Date.now()} ${epoch}`));
  };

  return {
    /** Gives ids, or takes them away. */
    consent(given: boolean): void {
      if (!given) attempt(() => store().removeItem(name));
      else if (!read()[0]) write(randomId());
    },

    /** What an event says of who is there. Where that may be kept, an epoch that was learned is. */
    ids(learned?: number): { device_id?: string; session_id?: string } {
      const [device_id, session_id = randomId(), epoch] = read();
      if (!device_id) return {};
      write(device_id, session_id, learned || epoch);
      return { device_id, session_id };
    },

    /** The epoch that the session has learned, in whichever tab; 0 or NaN is none. */
    known: (): number => +read()[2]!,
  };
}
