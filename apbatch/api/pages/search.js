// Searching files, or events: completion of names and values, a live count, the result, a histogram of any attribute.

import { ask, once } from "./ask.js";
import { bytes, count, h, link, problem, say, shown, table } from "./dom.js";
import { histogram } from "./histogram.js";

const WORDS = ["and", "or", "not", "between", "in", "like", "is null", "is not null", "order by", "limit", "desc"];
const KINDS = {
  search: {
    title: "Files", base: "/files", of: "files", columns: ["path", "size", "night", "run", "events"], pick: "size",
    hint: "experiment = 'TAIGA' and events > 1000 order by night desc",
    cell: { path: (row) => h("a", { href: link("/file", { path: row.place ?? row.path }) }, row.path), size: (row) => bytes(row.size) },
  },
  events: {
    title: "Events", base: "/events", of: "events", columns: ["run", "event", "telescope", "cleaning", "size", "length", "width", "alpha"],
    pick: "size", hint: "cleaning = 'tailcuts-14-7' and size > 200 pe",
    cell: { event: (row) => h("a", { href: link("/event", { experiment: row.experiment, run: row.run, event: row.event, telescope: row.telescope, cleaning: cleaning(row) }) }, String(row.event)) },
  },
};
const cleaning = (row) => (/^(tailcuts|sigma|time-neighbours)-/.test(row.cleaning) ? row.cleaning : null);

export default async function ({ name, parameters, go }) {
  const kind = KINDS[name];
  const query = parameters.get("q") ?? "";
  const attributes = new Map((await once("/attributes", { of: kind.of })).items.map((one) => [one.name, one]));
  const attribute = attributes.has(parameters.get("attribute")) ? parameters.get("attribute") : kind.pick;
  const address = (q, other = {}) => link(`/${name}`, { q, attribute: attribute === kind.pick ? null : attribute, ...other });

  const input = h("input", { class: "query", id: "query", type: "search", value: query, placeholder: kind.hint, autocomplete: "off", spellcheck: "false",
    autocapitalize: "off", role: "combobox", "aria-expanded": "false", "aria-controls": "choices", "aria-autocomplete": "list", "aria-describedby": "live" });
  const choices = h("ul", { class: "choices", id: "choices", role: "listbox", "aria-label": "Completions", hidden: true });
  const live = h("span", { id: "live", class: "quiet", role: "status" });
  const form = h("form", { class: "search", role: "search", onsubmit: (event) => { event.preventDefault(); go(address(input.value.trim())); } },
    h("div", { class: "box" }, h("label", { class: "quiet", for: "query" }, "Query"), input, choices),
    h("button", { class: "plain main", type: "submit" }, "Search"));
  complete(input, choices, attributes, kind);

  // How many match, while one writes; a wrong query is not told before one pauses.
  let timer;
  async function live_count() {
    try {
      const { count: many } = await ask(`${kind.base}/count`, { q: input.value });
      live.textContent = `${count(many)} match`;
    } catch (error) {
      if (error.name !== "AbortError") live.textContent = error.status === 400 ? error.detail : "no count";
    }
  }
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(live_count, 300); });

  const out = h("div", {}, h("p", { class: "quiet" }, "…"));
  const picture = h("div", { class: "card" });
  const select = h("select", { id: "attribute", onchange: () => go(address(query, { attribute: select.value }), true) },
    [...attributes.keys()].sort().map((one) => h("option", { value: one, selected: one === attribute }, one)));
  // The first rows come first: what counts all of them would hold them up.
  result(out, kind, query, attributes, address, go).then(() => {
    live_count();
    draw(picture, select, kind, query, attribute, address);
  });
  const files = ["csv", "parquet", "ndjson", "arrow"].map((one) => [" ", h("a", { href: `/api/v1${kind.base}?${new URLSearchParams({ q: query, format: one })}`, download: "" }, one)]);
  return [
    h("h1", {}, kind.title), form,
    h("div", { class: "bar" }, live, h("span", { class: "grow" }), h("span", {}, "All as", files),
      h("button", { class: "plain", type: "button", onclick: () => navigator.clipboard.writeText(location.href).then(() => say("The link is copied."), () => say(location.href)) }, "Copy link")),
    out, h("h2", {}, "Distribution"), picture,
  ];
}

async function draw(target, select, kind, query, attribute, address) {
  target.replaceChildren(h("div", { class: "bar" }, h("label", { for: "attribute" }, "of"), select), h("p", { class: "quiet" }, "…"));
  try {
    const found = await ask(`${kind.base}/histogram`, { q: query, attribute });
    target.lastChild.replaceWith(histogram(found, (condition) => address(narrowed(query, condition))));
  } catch (error) {
    if (error.name !== "AbortError") target.lastChild.replaceWith(problem(error));
  }
}

// The query with one more condition, before its order and limit.
function narrowed(query, condition) {
  const [, where, tail] = /^(.*?)(\s*\b(?:order\s+by|limit\s+\d).*)?$/is.exec(query);
  return (where.trim() ? `${/\bor\b/i.test(where) ? `(${where.trim()})` : where.trim()} and ${condition}` : condition) + (tail ?? "");
}

async function result(out, kind, query, attributes, address, go) {
  let page;
  const named = [...attributes.keys()].filter((one) => new RegExp(`\\b${one}\\b`, "i").test(query.replace(/'[^']*'/g, "")));
  const wanted = [...new Set([...kind.columns, ...named])].filter((one) => attributes.has(one));
  const columns = (kind.of === "files" ? [...wanted, "place"] : wanted).join(",");
  const slow = setTimeout(() => out.replaceChildren(h("p", { class: "quiet", role: "status" },
    "This search takes a while: much has to be looked through. The first rows appear as soon as they are there; leaving the page ends it.")), 1000);
  try {
    page = await ask(kind.base, { q: query, columns, limit: 50 });
  } catch (error) {
    if (error.name === "AbortError") return;
    out.replaceChildren(problem(error), error.nearest ? mend(query, error, address) : "");
    return;
  } finally {
    clearTimeout(slow);
  }
  if (!page.items.length) {
    out.replaceChildren(h("p", { class: "quiet" }, "Nothing matches."));
    return;
  }
  const order = /\border\s+by\s+(\w+)(\s+desc)?/i.exec(query);
  const shownColumns = wanted.map((one) => ({
    name: one, unit: one === "size" && kind.of === "files" ? null : attributes.get(one).unit, cell: kind.cell[one],
    number: ["integer", "number"].includes(attributes.get(one).type),
    sort: order?.[1].toLowerCase() === one ? (order[2] ? "descending" : "ascending") : null,
  }));
  const head = (column) => {
    const turned = column.sort === "ascending" ? " desc" : "";
    const plain = query.replace(/\s*\border\s+by\s+[\w\s,]+?(?=\s+limit\s+\d|$)/i, "");
    const limit = /\s*\blimit\s+\d+\s*$/i.exec(plain)?.[0] ?? "";
    const where = limit ? plain.slice(0, -limit.length) : plain;
    return h("button", { type: "button", title: `Order by ${column.name}`, onclick: () => go(address(`${where} order by ${column.name}${turned}${limit}`.trim())) },
      column.name, { ascending: " ↑", descending: " ↓" }[column.sort] ?? "");
  };
  const listed = table(shownColumns, page.items, "Result", head);
  const body = listed.querySelector("tbody");
  let cursor = page.cursor;
  const more = h("button", { class: "plain", type: "button", hidden: !cursor, onclick: async () => {
    try {
      const next = await ask(kind.base, { q: query, columns, limit: 200, cursor });
      body.append(...table(shownColumns, next.items, "").querySelectorAll("tbody tr"));
      cursor = next.cursor;
      more.hidden = !cursor;
    } catch (error) {
      more.before(problem(error));
    }
  } }, "More");
  out.replaceChildren(listed, h("div", { class: "bar" }, more));
}

function mend(query, error, address) {
  const column = Number(/column (\d+)/.exec(error.where ?? "")?.[1]);
  const word = column ? /^\w+/.exec(query.slice(column - 1))?.[0] : null;
  if (!word) return "";
  const better = query.slice(0, column - 1) + error.nearest + query.slice(column - 1 + word.length);
  return h("p", {}, "Did you mean ", h("a", { href: address(better) }, error.nearest), "?");
}

// A combobox as the ARIA practices have it: arrows choose, Enter or Tab takes, Escape closes.
function complete(input, choices, attributes, kind) {
  let at = -1, found = [], asked = 0;
  const close = () => { choices.hidden = true; at = -1; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); };
  const mark = (number) => {
    at = number;
    [...choices.children].forEach((item, n) => item.setAttribute("aria-selected", n === at));
    choices.children[at]?.scrollIntoView({ block: "nearest" });
    if (at >= 0) input.setAttribute("aria-activedescendant", `choice-${at}`);
  };
  const take = (one) => {
    const before = input.value.slice(0, input.selectionStart - one.typed.length), after = input.value.slice(input.selectionStart);
    input.value = before + one.text + (after.startsWith(" ") ? "" : " ") + after;
    const place = before.length + one.text.length + 1;
    input.setSelectionRange(place, place);
    close();
    input.dispatchEvent(new Event("input"));
  };
  const open = (list) => {
    found = list;
    choices.replaceChildren(...list.map((one, n) => h("li", { role: "option", id: `choice-${n}`, "aria-selected": "false", onmousedown: (event) => { event.preventDefault(); take(one); } },
      h("span", {}, one.text), h("small", {}, one.note))));
    choices.hidden = !list.length;
    input.setAttribute("aria-expanded", String(Boolean(list.length)));
    at = -1;
  };
  async function suggest() {
    const mine = ++asked, left = input.value.slice(0, input.selectionStart);
    const value = /(\w+)\s*(?:=|!=|in\s*\((?:\s*'[^']*'\s*,)*)\s*'([^']*)$/i.exec(left) ?? /(\w+)\s*(?:=|!=)\s*(\w*)$/i.exec(left);
    const attribute = value && attributes.get(value[1].toLowerCase());
    if (attribute && kind.of === "files" && ["string", "date"].includes(attribute.type)) {
      const typed = left.endsWith(value[2]) ? (left.at(-value[2].length - 1) === "'" ? `'${value[2]}` : value[2]) : "";
      try {
        const { items } = await ask("/complete", { attribute: attribute.name, begin: value[2], limit: 12 });
        if (mine === asked) open(items.map((one) => ({ text: `'${String(one.value).replaceAll("'", "''")}'`, note: count(one.count), typed })));
      } catch { close(); }
      return;
    }
    const word = /(?:^|[\s(])([a-z_]\w*)$/i.exec(left)?.[1];
    if (!word || (left.split("'").length - 1) % 2) return close();
    const begins = (text) => text.startsWith(word.toLowerCase()) && text !== word;
    open([
      ...[...attributes.values()].filter((one) => begins(one.name)).slice(0, 10).map((one) => ({ text: one.name, note: `${one.description}${one.unit ? `, ${one.unit}` : ""}`, typed: word })),
      ...WORDS.filter(begins).map((text) => ({ text, note: "", typed: word })),
    ]);
  }
  input.addEventListener("input", suggest);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (choices.hidden) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) { event.preventDefault(); mark((at + step + found.length) % found.length); }
    else if (event.key === "Escape") { event.preventDefault(); close(); }
    else if ((event.key === "Enter" || event.key === "Tab") && at >= 0) { event.preventDefault(); take(found[at]); }
  });
}
