// Bars over time, drawn by uPlot: all events, and the page views among them in front.
import uPlot from "uplot";

const HOUR = 3600;
const DAY = 24 * HOUR;
/** Steps between labels, in seconds: multiples that begin with UTC's days. */
const STEPS = [60, 300, 600, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, 91 * DAY, 182 * DAY];
const COUNTS = [1, 2, 5].flatMap((n) => Array.from({ length: 12 }, (_, i) => n * 10 ** i)).sort((a, b) => a - b);

const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "UTC" });
const date = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
const count = new Intl.NumberFormat("en", { notation: "compact" });

export class Chart {
  /**
   * @param {HTMLElement} host what it fills
   * @param {(at: number, edge: number, right: boolean, walked: boolean) => void} point called with the bucket that is pointed at
   *   (-1: none), the edge beside which there is room, to the right of it or to the left, and whether keys led there
   */
  constructor(host, point) {
    this.host = host;
    this.point = point;
    this.step = 60;
    this.walking = false;
    this.column = document.createElement("div");
    this.column.className = "column";
    const colour = (name) => () => getComputedStyle(host).getPropertyValue(name).trim();
    const bars = uPlot.paths.bars({ size: [0.76, 44], radius: [0.18, 0] });
    const series = (name) => ({ fill: colour(name), stroke: "transparent", width: 0, paths: bars, points: { show: false } });
    const axis = { stroke: colour("--muted"), font: `12px ${getComputedStyle(host).fontFamily}`, ticks: { show: false } };
    this.plot = new uPlot(
      {
        width: host.clientWidth,
        height: host.clientHeight,
        padding: [12, 24, 0, 0],
        legend: { show: false },
        cursor: { x: false, y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: {
          x: { time: false, range: () => this.range ?? [0, 1] },
          y: { range: (_, __, max) => [0, Math.max(4, max * 1.08)] },
        },
        axes: [
          { ...axis, grid: { show: false }, incrs: STEPS, space: 64, size: 28, gap: 8, values: (_, at) => at.map((t) => this.label(t)) },
          { ...axis, grid: { stroke: colour("--line"), width: 1 }, incrs: COUNTS, space: 44, size: 44, gap: 8, values: (_, at) => at.map((n) => count.format(n)) },
        ],
        series: [{}, series("--chart-events"), series("--chart-page-views")],
        hooks: { setCursor: [() => this.pointed()], ready: [(plot) => plot.over.append(this.column)] },
      },
      [[], [], []],
      host,
    );
    this.observer = new ResizeObserver(() => this.plot.setSize({ width: host.clientWidth, height: host.clientHeight }));
    this.observer.observe(host);
    host.addEventListener("keydown", (event) => this.walk(event));
    host.addEventListener("blur", () => this.plot.setCursor({ left: -10, top: -10 }));
  }

  /** Shows buckets of `step` seconds that start at `starts` (seconds), from `start` to `end`. */
  show(starts, events, pageViews, step, start, end) {
    this.step = step;
    this.range = [start, end];
    // A bar stands in the middle of its time.
    this.plot.setData([starts.map((at) => at + step / 2), events, pageViews]);
  }

  /** Draws again, in the colours of now. */
  paint() {
    this.plot.redraw(false, true);
  }

  /** Calls nobody any more. */
  end() {
    this.observer.disconnect();
    this.point = () => {};
    this.plot.destroy();
  }

  label(at) {
    const [start, end] = this.range;
    return this.step < DAY && (at % DAY !== 0 || end - start <= DAY) ? time.format(at * 1000) : date.format(at * 1000);
  }

  pointed() {
    const { idx, left } = this.plot.cursor;
    const at = idx == null || left < 0 ? -1 : idx;
    this.column.hidden = at < 0;
    if (at < 0) return this.point(-1, 0, true, false);
    const middle = this.plot.data[0][at];
    const [from, to] = [middle - this.step / 2, middle + this.step / 2].map((x) => this.plot.valToPos(x, "x"));
    this.column.style.left = `${from}px`;
    this.column.style.width = `${to - from}px`;
    const { offsetLeft, clientWidth } = this.plot.over;
    // Beside the column, on the side with more room.
    const right = (from + to) / 2 < clientWidth / 2;
    this.point(at, offsetLeft + (right ? to : from), right, this.walking);
  }

  /** Left and right go from bucket to bucket. */
  walk(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const last = this.plot.data[0].length - 1;
    // With others, these keys are the browser's.
    if (!by || last < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const { idx, left } = this.plot.cursor;
    const at = idx == null || left < 0 ? last : Math.min(last, Math.max(0, idx + by));
    this.walking = true;
    this.plot.setCursor({ left: this.plot.valToPos(this.plot.data[0][at], "x"), top: 1 });
    this.walking = false;
  }
}
