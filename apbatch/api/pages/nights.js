// Nights and their runs at a glance.

import { ask } from "./ask.js";
import { bytes, count, h, link, number, quoted, table, time } from "./dom.js";

export default async function ({ parameters }) {
  const night = parameters.get("night"), q = parameters.get("q") ?? "";
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
      { name: "time_start", title: "from", cell: (row) => time(row.time_start)?.slice(11) ?? "" },
      { name: "time_end", title: "to", cell: (row) => time(row.time_end)?.slice(11) ?? "" },
      { name: "rate", unit: "Hz", number: true, cell: (row) => number(row.rate) },
    ], items, "Runs of the night"),
  ];
}
