// Runs the scenario in the Wasm module named by the first argument; prints the canonical bytes in hex and the answers as JSON.
import { readFile } from "node:fs/promises";

const module = await WebAssembly.compile(await readFile(process.argv[2]));
const imports = WebAssembly.Module.imports(module);
if (imports.length > 0) throw new Error(`the module imports ${JSON.stringify(imports)}`);
const { exports } = await WebAssembly.instantiate(module, {});

const at = exports.outcome();
const memory = new DataView(exports.memory.buffer);
const bytes = memory.getUint32(at, true);
const count = memory.getUint32(at + 4, true);
const canonical = Buffer.from(exports.memory.buffer, at + 8, bytes);
const answers = Array.from({ length: count }, (_, i) => memory.getFloat64(at + 8 + bytes + 8 * i, true));
console.log(canonical.toString("hex"));
console.log(JSON.stringify(answers));
