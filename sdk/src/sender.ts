import * as limits from "./limits.js";
import type { Item, Queue } from "./queue.js";

/** The edge's answer, of what is read here: whoever answers may have written anything. */
interface Answer {
  error?: string;
  flush_ms?: number;
  epoch?: number;
  rejected?: { reason: string }[];
}

/** How long to wait after so many failures, at least one: twice as long each time, and half as much again at random. */
export const backoffMs = (failures: number, random = Math.random()): number =>
  Math.min(limits.BACKOFF_MS_MAX, limits.BACKOFF_MS_MIN * 2 ** (failures - 1)) * (0.5 + random);

/** Sends what waits in the queue, each event until someone who knows has answered for it. */
export function startSender(queue: Queue, url: string, warn: (text: string) => void, learn: (epoch: number | undefined) => void) {
  const now = (): number => performance.now();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let flushMs = limits.FLUSH_MS;
  let sentAt = -Infinity;
  let failures = 0;
  let backoffUntil = 0;
  /** The edge asked us to be silent until then; neither a network that is back nor a page that goes changes that. */
  let silentUntil = 0;
  /** Fewer while looking for the event that spoils its batch. */
  let most = limits.REQUEST_EVENTS_MAX;
  let underWay = 0;

  const send = (batch: Item[]): void => {
    const body = `{"sent_at":${Date.now()},"events":[${batch.map((item) => item.text)}]}`;
    const { size } = new Blob([body]);
    underWay += size;
    // What waits already follows as soon as this is answered.
    sentAt = queue.waits() ? -Infinity : now();

    const settle = (status: number, answer: Answer, retryAfter: number): void => {
      if (status === 202) {
        queue.remove(batch);
        failures = 0;
        most = Math.min(most * 2, limits.REQUEST_EVENTS_MAX);
        flushMs = answer.flush_ms || flushMs;
        learn(answer.epoch);
        for (const { reason } of answer.rejected ?? []) warn(`an event was rejected: ${reason}`);
      } else if (batch.length > 1 && /^(not_|malf|too_)/.test(answer.error!)) {
        most = batch.length >> 1;
        sentAt = -Infinity;
      } else if (status >= 400 && status < 500 && status !== 408 && status !== 429) {
        warn(`${batch.length} event(s) were refused: ${answer.error || status}`);
        queue.remove(batch);
      } else {
        backoffUntil = now() + backoffMs(++failures);
        if (retryAfter) silentUntil = now() + Math.min(retryAfter * 1000, limits.RETRY_AFTER_MS_MAX);
      }
    };

    // Text without headers of ours needs no leave from the edge first, and takes no cookies along.
    fetch(`${url}&r=${batch[0]!.route}`, {
      method: "POST",
      body,
      keepalive: true,
      credentials: "omit",
      signal: AbortSignal.timeout?.(limits.ANSWER_MS_MAX) ?? null,
    })
      .then(async (response) =>
        settle(response.status, (await response.json().catch(() => 0)) || {}, +response.headers.get("retry-after")!),
      )
      .catch(() => settle(0, {}, 0))
      .then(() => {
        underWay -= size;
        queue.release(batch);
        schedule();
      });
  };

  const flush = (): void => {
    const batch = queue.take(limits.REQUEST_BYTES_MAX - underWay, most);
    if (batch[0]) send(batch);
  };

  /** Sends what waits as soon as it may be sent. */
  const schedule = (): void => {
    clearTimeout(timer);
    if (!underWay && queue.waits()) {
      timer = setTimeout(flush, Math.max(sentAt + flushMs, backoffUntil, silentUntil) - now());
    }
  };

  return {
    schedule,

    /** The network is back. */
    online(): void {
      failures = backoffUntil = 0;
      schedule();
    },

    /** The page goes, perhaps for good: what fits goes with it, and stays in the storage until a later page has an answer for it. */
    leave(): void {
      if (now() < silentUntil) return;
      let batch: Item[];
      while ((batch = queue.take(limits.REQUEST_BYTES_MAX - underWay, most))[0]) send(batch);
    },
  };
}
