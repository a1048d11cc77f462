import { EVENT_CHARS_MAX, QUEUE_EVENTS_MAX } from "./limits.js";
import { attempt, type Store } from "./store.js";

/** An event that waits, as the text that is sent. */
export interface Item {
  /** Which shard counts it: fixed with the event, for it is there that its id is known should it come twice. */
  route: string;
  id: string;
  text: string;
  /** It was another page's: of one that is gone, or of a tab that may be sending it, too. */
  adopted?: boolean;
  /** It was sent, and nobody said what became of it. */
  tried?: boolean;
}

export type Queue = ReturnType<typeof openQueue>;

/**
 * The events that wait.
 *
 * Each is an item of its own in the storage that a site's tabs share, called `<prefix> <route> <id>`. An item never changes: tabs
 * don't write over each other, who ends early leaves whole events, and one that is sent twice is known by its id.
 */
export function openQueue(store: () => Store, prefix: string) {
  let waiting: Item[] = [];

  const nameOf = ({ route, id }: Item): string => `${prefix} ${route} ${id}`;

  /** Has an event wait, if there is room for it. */
  const push = (item: Item): unknown =>
    item.text.length <= EVENT_CHARS_MAX && waiting.length < QUEUE_EVENTS_MAX && waiting.push(item);

  /** Forgets events that were counted, or never will be. */
  const forget = (items: readonly Item[]): void => {
    for (const item of items) attempt(() => store().removeItem(nameOf(item)));
  };

  return {
    forget,

    /** Takes in an event of this page; falsy if there is no room for it. */
    add(item: Item): unknown {
      const room = push(item);
      if (room) attempt(() => store().setItem(nameOf(item), item.text));
      return room;
    },

    /** Takes in what other pages than that of a route have left in the storage, and clears away what there is no room for. */
    adopt(own: string): void {
      for (const name of attempt(() => Object.keys(store())) ?? []) {
        const [product, key, route, id] = name.split(" ");
        const text = id && route !== own && `${product} ${key}` === prefix && attempt(() => store().getItem(name));
        if (text) {
          const item = { route: route!, id: id!, text, adopted: true };
          if (!push(item)) forget([item]);
        }
      }
    },

    /** The next to send, which wait no longer: of one route, within so many bytes and events. */
    take(bytes: number, most: number): Item[] {
      const batch: Item[] = [];
      waiting = waiting.filter((item) => {
        if (item.route !== (batch[0] ?? item).route || batch.length >= most || (bytes -= sizeOf(item.text) + 1) < 0) return true;
        // Another tab may have had an answer for it.
        if (!item.adopted || attempt(() => store().getItem(nameOf(item)))) batch.push(item);
        return false;
      });
      return batch;
    },

    /** They wait again, after all others: where their shard is sick, the others' may be well. */
    release(batch: readonly Item[]): void {
      waiting.push(...batch);
    },

    /** How many wait. */
    waits: (): number => waiting.length,
  };
}

/** Bytes of a text. */
export const sizeOf = (text: string): number => new Blob([text]).size;
