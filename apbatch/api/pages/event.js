// One event: its image before and after cleaning with the Hillas ellipse, the square grid beside it, arrival times.

import { ask } from "./ask.js";
import { h, link, number, quoted, shown, svg, table } from "./dom.js";

// Viridis at eleven points; between them colours are mixed.
const VIRIDIS = [[68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140], [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37]];
function colour(part) {
  const place = Math.min(Math.max(part, 0), 1) * (VIRIDIS.length - 1), n = Math.min(Math.floor(place), VIRIDIS.length - 2);
  return `rgb(${VIRIDIS[n].map((low, k) => Math.round(low + (VIRIDIS[n + 1][k] - low) * (place - n)))})`;
}

const CLEANINGS = ["standard", "soft"];

export default async function ({ parameters, go }) {
  const key = Object.fromEntries(["experiment", "run", "event", "telescope"].map((name) => [name, parameters.get(name) ?? ""]));
  const cleaning = parameters.get("cleaning") ?? "standard";
  const found = await ask("/events/display", { ...key, cleaning });
  const image = found.image;
  const select = h("select", { id: "cleaning", onchange: () => go(link("/event", { ...key, cleaning: select.value }), true) },
    [...new Set([...CLEANINGS, cleaning])].map((name) => h("option", { value: name, selected: name === cleaning }, name)));
  return [
    h("h1", {}, `Event ${key.event} of run ${key.run}, ${key.experiment}`),
    h("div", { class: "bar" },
      h("label", { for: "cleaning" }, "Cleaning"), select,
      image ? h("span", { class: "quiet" }, `${image.camera}, ${image.values.length} pixels, telescope ${key.telescope}`) : null,
      h("span", { class: "grow" }),
      h("a", { href: link("/events", { q: `experiment = ${quoted(key.experiment)} and run = ${key.run}` }) }, "Events of this run"),
      h("a", { href: link("/search", { q: `experiment = ${quoted(key.experiment)} and run = ${key.run}` }) }, "Its files")),
    image ? pictures(image) : h("p", { class: "quiet" }, `No picture: ${found.reason}.`),
    image ? parameterTable(image) : null,
    h("h2", {}, "In the store of events"),
    rows(found.rows),
  ];
}

function pictures(image) {
  const finite = image.values.filter((value) => value !== null);
  const scale = [Math.min(0, ...finite), Math.max(...finite, 1e-9)];
  const kept = new Set(image.cleaned.mask);
  const clean = image.cleaned.parameters;
  return h("div", { class: "cards" },
    card("Before cleaning", camera(image, image.values, scale, () => true, image.all.parameters), "All pixels, with the ellipse of all light."),
    card(`After cleaning (${image.cleaned.name})`, camera(image, image.values, scale, (n) => kept.has(n), clean),
      image.cleaned.reason ?? (clean?.length === null ? "No light is left." : `${kept.size} pixels are kept; the ellipse has the half axes length and width.`)),
    card("Square grid", grid(image.grid, scale), "The same pixels on the grid that networks are given; what cleaning keeps is framed.", true),
    image.times ? card("Arrival times", camera(image, image.times, spread(image, kept), (n) => kept.has(n) && image.times[n] !== null, null, "ns"), "Of the pixels that cleaning keeps.") : null);
}

function spread(image, kept) {
  const times = image.times.filter((value, n) => value !== null && kept.has(n));
  return times.length ? [Math.min(...times), Math.max(...times) + 1e-6] : [0, 1];
}

const card = (title, picture, text) => h("section", { class: "card" }, h("h2", {}, title), h("figure", {}, picture, h("figcaption", {}, text)));

function corners(lattice, pitch) {
  const many = lattice === "hexagonal" ? 6 : 4, radius = pitch / (many === 6 ? Math.sqrt(3) : Math.SQRT2);
  return (turn) => Array.from({ length: many }, (_, k) => {
    const angle = turn + (2 * Math.PI * k) / many;
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
}

// Hexagons stand on a corner or lie on a side, as the direction to the nearest neighbour says.
function orientation({ x, y, pitch, lattice }) {
  const side = lattice === "hexagonal" ? Math.PI / 6 : Math.PI / 4;
  const first = Math.floor(x.length / 2);
  for (let n = 0; n < x.length; n++) {
    const dx = x[n] - x[first], dy = y[n] - y[first];
    if (n !== first && Math.hypot(dx, dy) < 1.1 * pitch) return Math.atan2(dy, dx) + side;
  }
  return side;
}

function camera(image, values, [low, high], on, ellipse, unit = "p.e.") {
  const { x, y, pitch, lattice } = image;
  const edge = 1.04 * Math.max(...x.map(Math.abs), ...y.map(Math.abs)) + pitch;
  const outline = corners(lattice, pitch)(orientation(image));
  const round = (value) => value.toFixed(3);
  const pixels = values.map((value, n) => {
    const points = outline.map(([dx, dy]) => `${round(x[n] + dx)},${round(-(y[n] + dy))}`).join(" ");
    const lit = value !== null && on(n);
    return svg("polygon", { points, class: lit ? null : "off", fill: lit ? colour((value - low) / (high - low)) : null },
      svg("title", {}, `pixel ${n}: ${value === null ? "not measured" : `${number(value)} ${unit}`}`));
  });
  const marks = [];
  if (ellipse && ellipse.psi !== null && ellipse.length !== null) {
    const turn = `translate(${round(ellipse.cog_x)} ${round(-ellipse.cog_y)}) rotate(${round(-ellipse.psi)})`;
    marks.push(svg("g", { transform: turn, "stroke-width": edge / 90 },
      svg("line", { class: "axisline", x1: -2 * ellipse.length, x2: 2 * ellipse.length, "stroke-width": edge / 180, style: null }),
      svg("ellipse", { class: "ellipse", rx: ellipse.length, ry: Math.max(ellipse.width, edge / 300) })));
  }
  const drawing = svg("svg", { viewBox: `${-edge} ${-edge} ${2 * edge} ${2 * edge}`, role: "img", "aria-label": `Camera image, ${number(low)} to ${number(high)} ${unit}` }, pixels, marks);
  return [drawing, bar(low, high, unit)];
}

function grid(found, [low, high]) {
  const cells = found.values.map((value, n) => {
    const lit = value !== null && found.values[n] !== 0;
    return svg("rect", { x: n % found.columns, y: found.rows - 1 - Math.floor(n / found.columns), width: 1.02, height: 1.02,
      class: lit ? null : "off", fill: lit ? colour((value - low) / (high - low)) : null });
  });
  const frames = found.cleaned.map((value, n) => value
    ? svg("rect", { class: "ellipse", x: (n % found.columns) + 0.06, y: found.rows - 1 - Math.floor(n / found.columns) + 0.06, width: 0.88, height: 0.88, "stroke-width": 0.12 })
    : null);
  return [svg("svg", { viewBox: `0 0 ${found.columns} ${found.rows}`, role: "img", "aria-label": `Square grid of ${found.rows} rows and ${found.columns} columns` }, cells, frames), bar(low, high, "p.e.")];
}

function bar(low, high, unit) {
  const steps = Array.from({ length: 60 }, (_, n) => svg("rect", { x: 40 + n * 4, y: 2, width: 4.2, height: 9, fill: colour(n / 59) }));
  return svg("svg", { viewBox: "0 0 350 14", "aria-hidden": "true" }, steps,
    svg("text", { x: 36, y: 11, "text-anchor": "end" }, number(low)), svg("text", { x: 284, y: 11 }, `${number(high)} ${unit}`));
}

const UNITS = { size: "p.e.", length: "deg", width: "deg", cog_x: "deg", cog_y: "deg", psi: "deg", distance: "deg", alpha: "deg" };
function parameterTable(image) {
  const list = Object.keys(image.all.parameters).map((name) => ({ name, all: image.all.parameters[name], cleaned: image.cleaned.parameters?.[name] ?? null }));
  return [h("h2", {}, "Image parameters"), table([
    { name: "name", title: "parameter" }, { name: "all", title: "all pixels", number: true },
    { name: "cleaned", title: image.cleaned.name, number: true }, { name: "unit", cell: (row) => UNITS[row.name] ?? "" },
  ], list, "Image parameters")];
}

function rows(list) {
  const names = [...new Set(list.flatMap((row) => Object.keys(row).filter((name) => row[name] !== null)))].filter((name) => !["experiment", "run", "event", "telescope"].includes(name));
  names.sort((one, other) => rank(one) - rank(other));
  return table(names.map((name) => ({ name, cell: name === "file" ? (row) => row.file && h("a", { href: link("/file", { path: row.file }) }, row.file.split("/").at(-1)) : (row) => shown(name, row[name]) })), list, "Rows of this event");
}
const rank = (name) => (name === "cleaning" ? 0 : /score|gammaness/.test(name) ? 1 : name === "file" ? 3 : 2);
