// The SDK's scripts, answered for before Wasm is asked.
import scripts from "./sdk.js";

/** How long a browser may keep a script without asking: it bounds how long an old epoch is still written into routes. */
const MAX_AGE_S = 3600;

/** The answer, or nothing where the request is for something else. */
export function answer(request, env) {
  const script = scripts[new URL(request.url).pathname];
  if (!script || (request.method !== "GET" && request.method !== "HEAD")) return;
  const epoch = epochOf(env);
  const headers = new Headers({
    "access-control-allow-origin": "*",
    "cache-control": `public, max-age=${MAX_AGE_S}`,
    "cross-origin-resource-policy": "cross-origin",
    etag: `W/"${script.tag}-${epoch}"`,
    vary: "accept-encoding",
    "x-content-type-options": "nosniff",
  });
  if (request.headers.get("if-none-match")?.includes(headers.get("etag"))) return new Response(null, { status: 304, headers });
  headers.set("content-type", "text/javascript; charset=utf-8");
  // The runtime compresses what says that it is.
  const encoding = encodingOf(request.headers.get("accept-encoding") ?? "");
  if (encoding) headers.set("content-encoding", encoding);
  return new Response(request.method === "HEAD" ? null : script.text.replace("__EPOCH__", epoch), { headers });
}

/** The smallest of the encodings that are accepted, if any is: `q=0` is a refusal. */
function encodingOf(accepted) {
  const coded = accepted.split(",").map((one) => one.split(";").map((part) => part.trim().toLowerCase()));
  const names = coded.filter(([, q]) => !/^q=0(\.0*)?$/.test(q)).map(([name]) => name);
  return ["br", "gzip"].find((name) => names.includes(name));
}

/** Settings that can't be read are complained of where events go. */
function epochOf(env) {
  try {
    return JSON.parse(env.PLACEMENT).epoch;
  } catch {
    return "";
  }
}
