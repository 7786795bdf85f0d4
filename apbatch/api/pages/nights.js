// Nights, their runs at a glance, and the quality of one run.

import { ask } from "./ask.js";
import { bytes, count, h, link, number, quoted, table, time } from "./dom.js";
import { curve, pixels, worst } from "./quality.js";

export default async function ({ parameters }) {
  const night = parameters.get("night"), q = parameters.get("q") ?? "";
  if (parameters.has("run")) return (await import("./quality.js")).default(parameters.get("experiment") ?? "", parameters.get("run"));
  return night ? runs(night, q) : nights(q);
}

async function nights(q) {
  const { items } = await ask("/nights", { q });
  const dated = items.filter((one) => one.night !== null), undated = items.find((one) => one.night === null);
  const most = Math.max(1, ...dated.map((one) => one.files));
  return [
    h("h1", {}, "Nights"),
    h("p", { class: "quiet" }, "From noon to noon UTC, named by the evening's date; the bar is the number of files."),
    dated.length
      ? h("div", { class: "nights" }, dated.reverse().map((one) => {
          const part = h("i");
          part.style.width = `${(100 * one.files) / most}%`;
          return h("a", { href: link("/nights", { night: one.night, q }), "aria-label": `${one.night}: ${one.files} files` }, h("span", {}, one.night), h("span", { class: "track" }, part), h("span", { class: "quiet" }, count(one.files)));
        }))
      : h("p", { class: "quiet" }, "No file tells its night."),
    undated ? h("p", {}, h("a", { href: link("/search", { q: "night is null" }) }, `${count(undated.files)} files without a night`)) : null,
  ];
}

async function runs(night, q) {
  const { items } = await ask("/nights", { night, q });
  const query = (row) => `experiment = ${quoted(row.experiment)} and ${row.run === null ? "run is null" : `run = ${row.run}`}`;
  const clock = (text) => (text ? time(text).slice(11, 19) : "");
  const looked = items.some((row) => row.quality.length);
  return [
    h("h1", {}, `Night of ${night}`),
    h("div", { class: "bar" }, h("a", { href: link("/nights", { q }) }, "All nights"), h("a", { href: link("/search", { q: `night = ${quoted(night)}` }) }, "Files of this night"), h("a", { href: link("/events", { q: `night = ${quoted(night)}` }) }, "Events of this night")),
    table([
      { name: "experiment" },
      { name: "run", cell: (row) => h("a", { href: link("/search", { q: query(row) }) }, row.run ?? "none") },
      { name: "telescope", number: true },
      { name: "files", number: true },
      { name: "size", number: true, cell: (row) => bytes(row.size) },
      { name: "events", number: true, cell: (row) => (row.events === undefined ? "" : count(row.events)) },
      { name: "time_start", title: "from", cell: (row) => clock(row.time_start) },
      { name: "time_end", title: "to", cell: (row) => clock(row.time_end) },
      { name: "rate", unit: "Hz", number: true, cell: (row) => number(row.quality[0]?.event_rate.median ?? row.rate) },
      ...(looked ? [
        { name: "curve", title: "rate over the run", cell: (row) => row.quality.map((one) => curve(one.rates)) },
        { name: "quality", cell: (row) => row.quality.map((one) =>
            h("div", {}, h("a", { href: link("/nights", { experiment: row.experiment, run: row.run }), class: worst(one) ? "badge warn" : "badge" }, pixels(one)))) },
      ] : []),
    ], items, "Runs of the night"),
    looked ? null : h("p", { class: "quiet" }, "Rates over time, pedestals and pixels are shown once a run was looked at: apbatch quality, or the step quality of a job."),
  ];
}
