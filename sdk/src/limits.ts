/** Bytes of one request, and of all that are under way as a page goes: browsers let 64 KiB outlive their page. */
export const REQUEST_BYTES_MAX = 60_000;
/** Events of one request; the edge takes as many. */
export const REQUEST_EVENTS_MAX = 1_000;
/** Characters of one event. */
export const EVENT_CHARS_MAX = 4_000;
/** Events that wait on one page, its own and those of pages that are gone: some 300 kB, of the 5 MB that browsers give a site. */
export const QUEUE_EVENTS_MAX = 1_000;
/** Milliseconds between two requests, until the edge says how many. */
export const FLUSH_MS = 5_000;
/** Milliseconds after which a request is given up and its events are sent again. */
export const ANSWER_MS_MAX = 30_000;
/** Milliseconds of the first wait after a failure, and of the longest. */
export const BACKOFF_MS_MIN = 1_000;
export const BACKOFF_MS_MAX = 60_000;
/** Milliseconds that an edge may ask us to wait. */
export const RETRY_AFTER_MS_MAX = 3_600_000;
/** Milliseconds without an event that end a session. */
export const SESSION_IDLE_MS = 1_800_000;
/** Measures of one event that the edge takes. */
export const MEASURES_MAX = 8;
/** Characters of what is taken from an address: at most four bytes each, of the 512 that the edge allows. */
export const VALUE_CHARS_MAX = 128;
/** The same of a path, which is ASCII. */
export const PATH_CHARS_MAX = 512;
