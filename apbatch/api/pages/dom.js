// Elements are made from text, never from markup: nothing that a file is called can become part of the page.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export const say = (text) => {
  const status = document.getElementById("status");
  status.textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => (status.textContent = ""), 4000);
};

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const count = (value) => whole.format(value).replaceAll(",", "\u202f");

export function bytes(value) {
  if (value === null || value === undefined) return "";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let step = 0;
  while (value >= 1000 && step < units.length - 1) [value, step] = [value / 1000, step + 1];
  return `${step && value < 100 ? value.toPrecision(3) : Math.round(value)} ${units[step]}`;
}

export function number(value) {
  if (value === null || value === undefined) return "";
  if (Number.isInteger(value)) return Math.abs(value) < 1e5 ? String(value) : count(value);
  return Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3 ? value.toExponential(3) : String(Number(value.toPrecision(5)));
}

export const time = (text) => (text ? text.replace("T", " ").replace(/(\.\d+)?(\+00:00|Z)$/, "") : "");

// A value as a table shows it.
export function shown(name, value) {
  if (value === null || value === undefined) return "";
  if (name === "mtime_ns") return time(new Date(value / 1e6).toISOString());
  if (name === "checksum" || name === "content") return h("code", { title: value }, String(value).slice(0, 12));
  if (typeof value === "number") return name === "run" || name === "event" ? String(value) : number(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  return /^\d{4}-\d\d-\d\dT/.test(value) ? time(value) : String(value);
}

// A table that scrolls by itself on a narrow screen; a column is {name, title, unit, cell, number}.
export function table(columns, rows, caption, head = (column) => column.title ?? column.name) {
  const cell = (column, row) => (column.cell ? column.cell(row) : shown(column.name, row[column.name]));
  const kind = (column) => (column.number ? "number" : column.name === "path" || column.name === "name" ? "name" : null);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {},
      h("thead", {}, h("tr", {}, columns.map((column) =>
        h("th", { scope: "col", class: kind(column), "aria-sort": column.sort }, head(column),
          column.unit ? [" ", h("span", { class: "unit" }, column.unit)] : null)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, columns.map((column) => filled(kind(column), cell(column, row))))))));
}
// Dates and times stay on one line.
const filled = (kind, content) => h("td", { class: kind ?? (DATE.test(content) ? "short" : null) }, content);
const DATE = /^\d{4}-\d\d-\d\d( [\d:.]+)?$/;

export const facts = (rows) =>
  h("div", { class: "scroll" }, h("table", {}, h("tbody", {}, rows.map(([name, value]) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value))))));

export function problem(error) {
  return h("div", { class: "problem", role: "alert" },
    h("p", {}, error.detail ?? error.message, error.where ? ` (${error.where})` : ""),
    error.remedy ? h("p", { class: "quiet" }, error.remedy) : null);
}

export const link = (view, parameters = {}) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return view + (given.length ? "?" + new URLSearchParams(given) : "");
};

// Text as the query language writes it.
export const quoted = (text) => "'" + String(text).replaceAll("'", "''") + "'";
