// One file: what it is, where it is, what it was made from.

import { ask } from "./ask.js";
import { crumbs } from "./browse.js";
import { bytes, facts, h, link, quoted, shown, table, time } from "./dom.js";

const FIRST = ["experiment", "format", "size", "run", "night", "time_start", "time_end", "telescope", "events"];
const INSIDE = new Set(["path", "place", "source", "site", "revision", "checksum", "adler32", "state", "mtime_ns", "reason"]);

export default async function ({ parameters }) {
  const path = parameters.get("path") ?? "";
  const file = await ask("/file", { path });
  const record = file.record;
  const attributes = file.attributes.filter((one) => !INSIDE.has(one.name));
  attributes.sort((one, other) => order(one.name) - order(other.name));
  const value = (one) => [one.name === "size" ? bytes(one.value) : shown(one.name, one.value), one.unit && one.name !== "size" ? ` ${one.unit}` : ""];
  return [
    h("h1", {}, path.split("/").at(-1)),
    h("div", { class: "bar" }, crumbs(path), h("span", { class: "grow" }),
      file.download
        ? h("a", { class: "button main", href: file.download, download: "" }, `Download (${bytes(record.size)})`)
        : h("span", { class: "badge" }, "its bytes may not be read")),
    record.state !== "registered" ? h("p", { class: "problem" }, `${record.state}${record.reason ? `: ${record.reason}` : ""}`) : null,
    h("div", { class: "cards" },
      h("section", { class: "card" }, h("h2", {}, "What it holds"),
        facts(attributes.map((one) => [h("span", { title: one.description }, one.name), value(one)]))),
      h("section", { class: "card" }, h("h2", {}, "Checksums"),
        facts([
          ["BLAKE3", h("code", {}, record.checksum || "not read yet")],
          ["Adler-32", h("code", {}, record.adler32 || "not read yet")],
          ["verified blocks", file.content ? String(file.content.blocks) : record.size <= 2 ** 21 && record.checksum ? "the file is one block" : "no hashes of blocks are kept"],
          ["last changed", shown("mtime_ns", record.mtime_ns)],
          ["revision", String(record.revision)],
        ]),
        h("h2", {}, "See also"),
        h("p", {}, h("a", { href: link("/events", { q: `file = ${quoted(record.path)}` }) }, "Events of this file")),
        record.run !== null ? h("p", {}, h("a", { href: link("/search", { q: `experiment = ${quoted(record.experiment)} and run = ${record.run}` }) }, `Files of run ${record.run}`)) : null)),
    h("h2", {}, "Sources"),
    table([
      { name: "site" },
      { name: "path" },
      { name: "state", cell: (row) => h("span", { class: "badge" }, row.state) },
      { name: "mtime_ns", title: "changed" },
    ], file.sources, "Sources"),
    h("h2", {}, "Replicas"),
    file.replicas.length
      ? table([
          { name: "kind" },
          { name: "url", title: "where", cell: (row) => h("code", {}, row.url ?? "") },
          { name: "checksum" },
          { name: "state", cell: (row) => row.checksum === record.checksum ? h("span", { class: "badge" }, "same content") : h("span", { class: "badge warn" }, "older content") },
          { name: "verified", cell: (row) => time(row.verified) },
        ], file.replicas, "Replicas")
      : h("p", { class: "quiet" }, "No copies are registered."),
  ];
}

const order = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
