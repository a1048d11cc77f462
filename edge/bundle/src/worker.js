// The Worker's modules, joined: the instance is made once for each isolate.
import * as bindings from "./catchment_bg.js";
import module from "./catchment_bg.wasm";
import { answer } from "./scripts.js";

const instance = new WebAssembly.Instance(module, { "./catchment_bg.js": bindings });
bindings.__wbg_set_wasm(instance.exports);
instance.exports.__wbindgen_start?.();

export default { fetch: (request, env, context) => answer(request, env) ?? bindings.fetch(request, env, context) };
export const Shard = bindings.Shard;
