import { start } from "./core.js";
import type { Auto, Catchment } from "./types.js";

type Call = ArrayLike<unknown>;
type Stub = { (...call: unknown[]): void; q?: Call[]; loaded?: true };

// What `<script async src="https://EDGE/catchment.js" data-key="wk_…">` runs. The folder it came from is the edge, which writes
// its epoch in as it serves the file.
const page = window as unknown as { catchment?: Stub };
const script = document.currentScript as HTMLScriptElement;
const { key = "", endpoint = script.src, auto = "", localhost } = script.dataset;

if (!page.catchment?.loaded) {
  const calls = page.catchment?.q ?? [];
  let api: Catchment | undefined;
  const call = ([name, ...values]: unknown[]): void => {
    (api as Record<string, (...values: unknown[]) => void> | undefined)?.[name as string]?.(...values);
  };
  page.catchment = (...values) => call(values);
  page.catchment.loaded = true;
  start(
    {
      key,
      endpoint: new URL(endpoint, location.href).href,
      auto: auto.split(" ") as Auto[],
      localhost: localhost !== undefined,
      epoch: "__EPOCH__",
    },
    () => import(new URL("catchment-auto.js", script.src).href),
    (catchment) => {
      api = catchment;
      for (const made of calls) call(Array.from(made));
    },
  );
}
