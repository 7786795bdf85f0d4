// A histogram as SVG; each column says what it is, and is a link to what is in it.

import { count, h, number, quoted, svg, time } from "./dom.js";

const WIDTH = 560, HEIGHT = 190, LEFT = 46, BOTTOM = 34, TOP = 8;

export function histogram(found, refine) {
  const bars = found.kind === "bins"
    ? found.counts.map((many, n) => ({ many, low: found.edges[n], high: found.edges[n + 1] }))
    : found.values.map((one) => ({ many: one.count, value: one.value }));
  if (!bars.length) return h("p", { class: "quiet" }, `No value of ${found.attribute} in this result.`);
  const most = Math.max(1, ...bars.map((bar) => bar.many));
  const width = (WIDTH - LEFT - 8) / bars.length;
  const height = (many) => ((HEIGHT - BOTTOM - TOP) * many) / most;
  const isTime = found.type === "time";
  const edge = (value) => (isTime ? time(value) : number(value));
  const label = (bar) => (found.kind === "bins" ? `${edge(bar.low)} to ${edge(bar.high)}` : String(bar.value));
  const condition = (bar) => {
    if (found.kind === "values") return `${found.attribute} = ${["string", "date"].includes(found.type) ? quoted(bar.value) : bar.value}`;
    const quote = (value) => (isTime ? quoted(value) : found.type === "integer" ? Math.ceil(value) : value);
    const last = bar === bars.at(-1);
    return found.type === "integer"
      ? `${found.attribute} between ${Math.ceil(bar.low)} and ${last ? Math.floor(bar.high) : Math.ceil(bar.high) - 1}`
      : `${found.attribute} >= ${quote(bar.low)} and ${found.attribute} ${last ? "<=" : "<"} ${quote(bar.high)}`;
  };
  const columns = bars.map((bar, n) =>
    svg("a", { href: refine(condition(bar)), "aria-label": `${label(bar)}: ${count(bar.many)}` },
      svg("rect", { x: LEFT + n * width, y: TOP, width, height: HEIGHT - BOTTOM - TOP, fill: "transparent" }),
      svg("rect", { class: "column", x: LEFT + n * width + 0.5, y: HEIGHT - BOTTOM - height(bar.many), width: Math.max(width - 1, 0.8), height: height(bar.many) }),
      svg("title", {}, `${label(bar)}: ${count(bar.many)}`)));
  const base = HEIGHT - BOTTOM;
  const text = (x, y, content, anchor = "middle") => svg("text", { x, y, "text-anchor": anchor }, content);
  const short = (content) => (content.length > 19 ? content.slice(0, 18) + "…" : content);
  const every = Math.ceil(bars.length / 5);
  const names = found.kind === "bins"
    ? [[LEFT, edge(bars[0].low), "start"], [WIDTH - 8, edge(bars.at(-1).high), "end"]].map(([x, content, anchor]) => text(x, base + 14, content, anchor))
    : bars.map((bar, n) => (n % every ? null : text(LEFT + (n + 0.5) * width, base + 14, short(String(bar.value)))));
  return h("figure", {},
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "group", "aria-label": `Histogram of ${found.attribute}` },
      svg("line", { class: "axis", x1: LEFT, x2: WIDTH - 8, y1: base, y2: base }),
      text(LEFT - 6, TOP + 9, count(most), "end"), text(LEFT - 6, base, "0", "end"), columns, names,
      text((LEFT + WIDTH) / 2, HEIGHT - 4, `${found.attribute}${found.unit ? `, ${found.unit}` : ""}${found.scale === "log" ? " (bins equal in the logarithm)" : ""}`)),
    h("figcaption", {}, found.missing ? `${count(found.missing)} without a value. ` : "", found.others ? `${count(found.others)} with other values. ` : "", "Choose a column to narrow the search."));
}
