// Counts the NDJSON file named second with the Wasm module named first, as shards do; prints CPU seconds as one JSON object.
import { open, readFile } from "node:fs/promises";

const BODY_EVENTS = 500;
const CHUNK_BYTES = 1 << 20;

const [, , modulePath, file, cubes] = process.argv;
const { exports } = await WebAssembly.instantiate(await WebAssembly.compile(await readFile(modulePath)), {});
const input = await open(file);
const chunk = Buffer.alloc(CHUNK_BYTES);

const began = process.cpuUsage();
exports.begin(cubes === "default" ? 1 : 0);
let rest = Buffer.alloc(0);
let [start, at, lines] = [0, 0, 0];
const take = (bytes) => {
  const place = exports.buffer(bytes.length);
  new Uint8Array(exports.memory.buffer).set(bytes, place);
  exports.take();
};
for (;;) {
  const { bytesRead } = await input.read(chunk, 0, CHUNK_BYTES);
  if (bytesRead === 0) break;
  rest = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
  [start, at, lines] = [0, 0, 0];
  for (;;) {
    const end = rest.indexOf(10, at);
    if (end < 0) break;
    at = end + 1;
    if (++lines === BODY_EVENTS) {
      take(rest.subarray(start, at));
      [start, lines] = [at, 0];
    }
  }
  rest = rest.subarray(start);
}
if (rest.length > 0) take(rest);
const frameBytes = exports.finish();
const used = process.cpuUsage(began);
console.log(JSON.stringify({ events: exports.accepted(), cpu_s: (used.user + used.system) / 1e6, frame_bytes: frameBytes }));
