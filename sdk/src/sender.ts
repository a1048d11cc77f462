import * as limits from "./limits.js";
import type { Extras } from "./core.js";
import { sizeOf, type Item, type Queue } from "./queue.js";

/** What the edge answers, as far as it is read here. */
export interface Answer {
  error?: string;
  /** The edge's own refusals have a sentence on it. */
  detail?: string;
  flush_ms?: number;
  epoch?: number;
  /** How long ago the edge last took routes of an earlier epoch. */
  ended_ms_ago?: number;
  rejected?: { event_id: string | null; reason: string }[];
}

/** How long to wait after so many failures, at least one: twice as long each time, and up to half as much more or less. */
export const backoffMs = (failures: number, random = Math.random()): number =>
  Math.min(limits.BACKOFF_MS_MAX, limits.BACKOFF_MS_MIN * 2 ** (failures - 1)) * (0.5 + random);

/**
 * Sends what waits in the queue, again and again, until someone who can know has answered for it. One request at a time, but for
 * when the page goes. `learn` is told the epoch that an answer carries, and the route that it is about.
 */
export function startSender(queue: Queue, url: string, extras: () => Promise<Extras>, learn: (epoch: number | undefined, route: string) => void) {
  const now = (): number => performance.now();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let flushMs = limits.FLUSH_MS;
  let failures = 0;
  /** When the next request is due. */
  let dueAt = 0;
  /** The edge wants silence until then; neither a network that is back nor a page that goes changes that. */
  let silentUntil = 0;
  /** Events of a batch: fewer while looking for the one that spoils it. */
  let most = limits.REQUEST_EVENTS_MAX;
  let bytesUnderWay = 0;
  let aborter = new AbortController();

  /** Waits for no answer any more: what is under way will be sent again. */
  const abort = (): void => {
    aborter.abort();
    aborter = new AbortController();
  };

  /** Sends one batch; gives its first event, if there was any. */
  const send = (): Item | undefined => {
    const batch = queue.take(limits.REQUEST_BYTES_MAX - bytesUnderWay, most);
    if (batch[0]) post(batch);
    return batch[0];
  };

  const post = async (batch: Item[]): Promise<void> => {
    /** Done with it all. */
    const drop = (): number => {
      queue.forget(batch.splice(0));
      return most;
    };
    const began = Date.now();
    const body = `{"sent_at":${began},"events":[${batch.map((item) => item.text)}]}`;
    const bytes = sizeOf(body);
    bytesUnderWay += bytes;
    // What already waits follows as soon as this is answered.
    const sentAt = queue.waits() ? 0 : now();
    const patience = setTimeout(abort, limits.ANSWER_MS_MAX);
    try {
      // Text, and no header of ours: no leave must be asked for before. And no cookies go along.
      const response = await fetch(`${url}&r=${batch[0]!.route}`, {
        method: "POST",
        body,
        keepalive: true,
        credentials: "omit",
        signal: aborter.signal,
      });
      const { status } = response;
      const answer: Answer = (await response.json().catch(() => 0)) || {};
      learn(answer.epoch, batch[0]!.route);
      if (status === 202) {
        drop();
        failures = 0;
        most = Math.min(most * 2, limits.REQUEST_EVENTS_MAX);
        flushMs = answer.flush_ms || flushMs;
        dueAt = sentAt && sentAt + flushMs;
        if (answer.rejected?.[0]) extras().then(({ explain }) => explain(answer.rejected!), drop);
      } else {
        silentUntil = now() + Math.min((+response.headers.get("retry-after")! || 0) * 1000, limits.RETRY_AFTER_MS_MAX);
        // Only the edge may condemn events, not what stands before it, and "too many" is not their fault. Where the judge can't be loaded, they are dropped: nobody
        // else knows which of them to keep.
        if (status > 499 || status === 429 || !answer.detail) throw 0;
        most = await extras().then(({ judge }) => judge(batch, answer, queue, began), drop);
        dueAt = 0;
      }
    } catch {
      // Even where nothing was taken, as the answer says: over a kept connection that breaks, browsers send a request twice by themselves,
      // and it is the second's.
      for (const item of batch) item.tried = true;
      dueAt = now() + backoffMs(++failures);
    }
    clearTimeout(patience);
    bytesUnderWay -= bytes;
    queue.release(batch);
    schedule();
  };

  /** Sends what waits as soon as it may be sent. */
  const schedule = (): void => {
    clearTimeout(timer);
    if (!bytesUnderWay && queue.waits()) timer = setTimeout(send, Math.max(dueAt, silentUntil) - now());
  };

  /** The network is back. */
  const online = (): void => {
    failures = dueAt = 0;
    schedule();
  };

  return {
    schedule,
    online,

    /** The page was frozen, and goes on: answers that came meanwhile are lost. */
    thaw(): void {
      abort();
      // Once what was under way waits again.
      setTimeout(online);
    },

    /** The page goes, perhaps for good: what fits goes with it, and stays in the storage until there is an answer for it. */
    leave(): void {
      if (now() >= silentUntil) while (send());
    },
  };
}
