import { start } from "./core.js";
import type { Auto } from "./types.js";

// What `<script async src="https://EDGE/catchment.js" data-key="wk_…">` runs. The folder it came from is the edge, which writes
// its epoch in as it serves the file.

type Calls = Record<string, ((...values: unknown[]) => void) | undefined>;
type Global = { (...call: unknown[]): void; q?: ArrayLike<unknown>[]; on?: true };

const page = window as unknown as { catchment?: Global };
const { src, dataset } = document.currentScript as HTMLScriptElement;

// Pasted twice, it counts once.
if (!page.catchment?.on) {
  const started = start(
    {
      key: dataset.key!,
      endpoint: dataset.endpoint ?? new URL(".", src).href,
      auto: dataset.auto?.split(" ") as Auto[] | undefined,
      localhost: "localhost" in dataset,
      epoch: parseInt("__EPOCH__") || 1,
    },
    () => import(new URL("catchment-more.js", src).href),
  );
  const calls = started?.[0] as Calls | undefined;
  const waiting = page.catchment?.q ?? [];
  page.catchment = (name, ...values) => calls?.[name as string]?.(...values);
  page.catchment.on = true;
  for (const call of waiting) page.catchment(...Array.from(call));
  started?.[1]();
}
