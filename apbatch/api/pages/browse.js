// A folder of the merged tree.

import { ask } from "./ask.js";
import { bytes, h, link, problem, quoted, shown, table } from "./dom.js";

export const address = (path) => "/browse" + path.split("/").map(encodeURIComponent).join("/");

export function crumbs(path) {
  const parts = path.split("/").filter(Boolean);
  const steps = parts.map((part, number) => [h("a", { href: address("/" + parts.slice(0, number + 1).join("/")) }, part)]);
  return h("nav", { class: "crumbs", "aria-label": "Folders above" },
    h("span", {}, h("a", { href: "/browse" }, "all data"), steps.slice(0, -1).map((step) => [" / ", step]),
      parts.length ? [" / ", h("strong", {}, parts.at(-1))] : null));
}

export default async function ({ path }) {
  const folder = path.replace(/^\/browse/, "").split("/").map(decodeURIComponent).join("/").replace(/\/$/, "");
  const page = await ask("/entries", { folder, limit: 500 });
  if (!page.items.length && folder) {
    const entry = await ask("/entry", { path: folder });
    if (entry.kind === "file") return (await import("./file.js")).default({ parameters: new URLSearchParams({ path: folder }) });
  }
  const columns = [
    { name: "name", cell: (row) => name(folder, row) },
    { name: "size", number: true, cell: (row) => (row.kind === "file" ? bytes(row.size) : "") },
    { name: "mtime_ns", title: "changed", cell: (row) => (row.kind === "file" ? shown("mtime_ns", row.mtime_ns) : "") },
    { name: "state", cell: (row) => [
      row.state && row.state !== "registered" ? h("span", { class: "badge" }, row.state) : null,
      row.conflict ? h("span", { class: "badge warn", title: "sites hold different content at this place" }, "conflict") : null] },
  ];
  const listed = table(columns, page.items, "Entries");
  const body = listed.querySelector("tbody");
  const more = h("button", { class: "plain", hidden: !page.cursor, onclick: () => next() }, "More");
  let cursor = page.cursor;
  async function next() {
    try {
      const following = await ask("/entries", { folder, limit: 500, cursor });
      body.append(...table(columns, following.items, "").querySelectorAll("tbody tr"));
      cursor = following.cursor;
      more.hidden = !cursor;
    } catch (error) {
      more.before(problem(error));
    }
  }
  const below = folder ? `place like ${quoted(folder.replace(/[\\%_]/g, "\\$&") + "/%")}` : "";
  return [
    h("h1", {}, folder || "All data"),
    h("div", { class: "bar" }, crumbs(folder), h("span", { class: "grow" }),
      h("a", { href: link("/search", { q: below }) }, "Search in this folder")),
    page.items.length ? listed : h("p", { class: "quiet" }, folder ? "This folder is empty." : "There is nothing here yet, or nothing that you may see."),
    h("div", { class: "bar" }, more),
  ];
}

function name(folder, row) {
  const path = `${folder}/${row.name}`;
  return row.kind === "folder"
    ? h("a", { href: address(path) }, `${row.name}/`)
    : h("a", { href: link("/file", { path }) }, row.name);
}
