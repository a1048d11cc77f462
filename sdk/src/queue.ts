import { EVENT_CHARS_MAX, QUEUE_CHARS_MAX, QUEUE_EVENTS_MAX } from "./limits.js";

/** An event that waits, as the text that is sent. */
export interface Item {
  /** Which shard counts it: fixed with the event, for there its id is known should it come twice. */
  route: string;
  id: string;
  text: string;
  /** It is under way. */
  sending?: boolean;
  /** It comes from a page that is gone, or from another tab. */
  adopted?: boolean;
}

/** Storage, or none where the browser gives none. Each of its calls may throw. */
export type Store = Pick<Storage, "length" | "key" | "getItem" | "setItem" | "removeItem"> | undefined;

export type Queue = ReturnType<typeof openQueue>;

/**
 * The events that wait.
 *
 * Each is an item of its own in the storage that a site's tabs share, named by route and id. An item never changes: tabs don't
 * write over each other, whoever ends early leaves whole events, and sending one twice is harmless.
 */
export function openQueue(store: Store, prefix: string) {
  let items: Item[] = [];
  let chars = 0;

  const named = ({ route, id }: Item): string => prefix + route + " " + id;

  const push = (item: Item): boolean => {
    const { length } = item.text;
    const room = length <= EVENT_CHARS_MAX && items.length < QUEUE_EVENTS_MAX && chars + length <= QUEUE_CHARS_MAX;
    if (room) {
      items.push(item);
      chars += length;
    }
    return room;
  };

  return {
    /** Takes an event in; `false` if there is no room for it. */
    add(item: Item): boolean {
      const room = push(item);
      try {
        if (room) store?.setItem(named(item), item.text);
      } catch {
        // No storage, or it is full: the event waits in memory.
      }
      return room;
    },

    /** Takes in what others have left in the storage. */
    adopt(): void {
      try {
        const own = new Set(items.map(named));
        for (let i = store?.length ?? 0; i--; ) {
          const name = store?.key(i);
          const [route, id] = name?.startsWith(prefix) ? name.slice(prefix.length).split(" ") : [];
          const text = id && !own.has(name!) && store?.getItem(name!);
          if (text) push({ route: route!, id: id!, text, adopted: true });
        }
      } catch {
        // No storage: nobody left anything.
      }
    },

    /** The next to send, under way from now on: of one route, oldest first, within so many bytes and events. */
    take(bytes: number, most: number): Item[] {
      const batch: Item[] = [];
      for (const item of items) {
        if (item.sending || (batch[0] && batch[0].route !== item.route)) continue;
        if (batch.length === most || (bytes -= new Blob([item.text]).size + 1) < 0) break;
        batch.push(item);
      }
      for (const item of batch) item.sending = true;
      return batch;
    },

    /** They wait again. */
    release(batch: readonly Item[]): void {
      for (const item of batch) item.sending = false;
    },

    /** They are done with. */
    remove(batch: readonly Item[]): void {
      for (const item of batch) {
        chars -= item.text.length;
        try {
          store?.removeItem(named(item));
        } catch {
          // It never was in there.
        }
      }
      items = items.filter((item) => !batch.includes(item));
    },

    /** Whether something waits that isn't under way. */
    waits: (): boolean => items.some((item) => !item.sending),
  };
}
