// The quality of a run: rates over time, pedestals, pixels that are not as the others, what was lost.

import { ask } from "./ask.js";
import { count, facts, h, link, number, quoted, svg, table, time } from "./dom.js";

const BAD = ["dead", "noisy", "hot", "unsteady"];
// Of the first gain: the high one of raw data.
const statuses = (one) => Object.values(one.pixels)[0] ?? {};
const faulty = (found) => BAD.filter((name) => found[name]).map((name) => `${found[name]} ${name}`).join(", ");

export const worst = (one) => Boolean(faulty(statuses(one)) || one.absent_clusters.length || Object.keys(one.losses).length);

export function pixels(one) {
  const absent = one.absent_clusters.length, lost = Object.keys(one.losses).length;
  return [faulty(statuses(one)), absent ? `${absent} ${absent === 1 ? "cluster" : "clusters"} missing` : "", lost ? "losses" : ""]
    .filter(Boolean).join(", ") || "all pixels good";
}

// Event rates as a line that begins at zero; without axes in a table.
export function curve(rates, times = null, width = 140, height = 26) {
  if (rates.length < 2) return null;
  const most = Math.max(...rates, 1e-9), left = times ? 52 : 1, bottom = times ? 20 : 1, top = times ? 8 : 1;
  const x = (n) => (left + (n * (width - left - 2)) / (rates.length - 1)).toFixed(1);
  const y = (rate) => (height - bottom - ((height - bottom - top) * rate) / most).toFixed(1);
  const line = svg("polyline", { class: "line", points: rates.map((rate, n) => `${x(n)},${y(rate)}`).join(" ") });
  const label = `Event rate, ${number(Math.min(...rates))} to ${number(Math.max(...rates))} Hz`;
  const text = (at, down, content, anchor) => svg("text", { x: at, y: down, "text-anchor": anchor }, content);
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: times ? "chart" : "spark", role: "img", "aria-label": label },
    svg("line", { class: "axis", x1: left, x2: width - 2, y1: height - bottom, y2: height - bottom }), line,
    times ? [text(left - 6, top + 8, number(most), "end"), text(left - 6, height - bottom, "0", "end"),
      text(left, height - 5, clock(times[0]), "start"), text(width - 2, height - 5, clock(times.at(-1)), "end")] : svg("title", {}, label));
}
const clock = (text) => `${time(text).slice(11)} UTC`;

export default async function (experiment, run) {
  const { items } = await ask("/quality", { experiment, run });
  const q = `experiment = ${quoted(experiment)} and run = ${run}`;
  return [
    h("h1", {}, `Run ${run}, ${experiment}`),
    h("div", { class: "bar" }, h("a", { href: link("/search", { q }) }, "Its files"), h("a", { href: link("/events", { q }) }, "Its events")),
    items.map((one) => telescope(one)),
  ];
}

function telescope(one) {
  const spread = one.event_rate, gains = Object.entries(one.pixels);
  const range = (rate) => (rate?.median == null ? "" : `${number(rate.lowest)} to ${number(rate.highest)}, in the middle ${number(rate.median)} Hz`);
  const clusters = Object.entries(one.clusters).map(([name, cluster]) => ({ name: Number(name), ...cluster }));
  return [
    h("h2", {}, `Telescope ${one.telescope}`),
    h("div", { class: "cards" }, h("section", { class: "card" }, h("h3", {}, "Event rate"),
      one.rates.length > 1
        ? h("figure", {}, curve(one.rates.map(([, rate]) => rate), one.rates.map(([moment]) => moment), 560, 170), h("figcaption", {}, "Events in a second, Hz; the first and the last bin are cut to the data."))
        : h("p", { class: "quiet" }, "Too short for a curve, or without times."))),
    facts([
      ["camera", one.camera],
      ["events", count(one.events)],
      ["duration", one.seconds === null ? "not known" : `${number(one.seconds)} s`],
      ["event rate", range(spread)],
      ...gains.map(([gain, found]) => [`pixels, ${gain === "whole" ? "images" : `${gain} gain`}`,
        Object.entries(found).map(([name, many]) => h("span", { class: BAD.includes(name) ? "badge warn" : "badge" }, `${many} ${name}`)).flatMap((badge) => [badge, " "])]),
      ...gains.map(([gain]) => [`pedestal, ${gain === "whole" ? "images" : `${gain} gain`}`,
        one.gains[gain].pedestal === null ? "not known" : `${number(one.gains[gain].pedestal)} ${one.unit}, spread ${number(one.gains[gain].spread)} (middle of the good pixels)`]),
      ["clusters without data", one.absent_clusters.join(", ") || "none"],
      ["lost", Object.entries(one.losses).map(([reason, many]) => `${count(many)} ${reason}`).join(", ") || "nothing"],
      ["looked at", time(one.made)],
      one.output ? ["report", h("code", {}, `${one.output}/report.html`)] : null,
    ].filter(Boolean)),
    h("h3", {}, "Clusters"),
    table([
      { name: "name", title: "cluster", number: true },
      { name: "share_of_events", title: "events that have it", number: true, cell: (row) => `${number(100 * row.share_of_events)} %` },
      { name: "rate", unit: "Hz", number: true, cell: (row) => (row.rate?.median == null ? "" : number(row.rate.median)) },
      { name: "rms", title: "spread", unit: one.unit, number: true },
      { name: "pixels", title: "faulty pixels", cell: (row) => faulty(row.pixels) || (row.pixels.absent ? `${row.pixels.absent} absent` : "none") },
    ], clusters, "Clusters of the camera"),
  ];
}
