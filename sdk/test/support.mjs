// What the tests of the SDK's parts stand on: a storage, and an edge that answers as it is told.

import { createServer } from "node:http";

/** A storage as browsers have it: its items are its own properties. */
export class Memory {
  getItem(name) {
    return Object.hasOwn(this, name) ? this[name] : null;
  }
  setItem(name, value) {
    this[name] = String(value);
  }
  removeItem(name) {
    delete this[name];
  }
}

/** What a browser that allows no storage gives. */
export const forbidden = () => {
  throw new DOMException("denied", "SecurityError");
};

let made = 0;
/** An event called by its name. */
export const item = (id, route = "1.here", text = `{"event_id":"${id}"}`) => ({ route, id, text });
/** An event of so many characters. */
export const long = (chars, route) => item(`long-${made++}`, route, "x".repeat(chars));

/** A server in place of the edge: `answer(request)` gives `{ status, headers, body }`; what came is in `seen`. */
export async function edge(answer) {
  const seen = [];
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    const { searchParams } = new URL(request.url, "http://edge");
    const ids = [...text.matchAll(/"event_id":"([^"]*)"/g)].map(([, id]) => id);
    const post = { at: performance.now(), text, ids, route: searchParams.get("r"), bytes: Buffer.byteLength(text) };
    seen.push(post);
    const { status = 202, headers = {}, body = { flush_ms: 20 } } = (await answer(post, seen.length)) ?? {};
    if (status) response.writeHead(status, headers).end(typeof body === "string" ? body : JSON.stringify(body));
    else response.destroy();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    seen,
    url: `http://127.0.0.1:${server.address().port}/v1/events?k=wk_x`,
    close: () => (server.closeAllConnections(), server.close()),
  };
}

/** Waits until something is so. */
export async function until(check, patience_ms = 8_000) {
  const deadline = performance.now() + patience_ms;
  while (!(await check())) {
    if (performance.now() > deadline) throw new Error(`not within ${patience_ms} ms: ${check}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
