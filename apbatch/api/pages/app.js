// Which view an address means, and going from one to the next without loading the page again.

import { ask, leave, once } from "./ask.js";
import { h, problem } from "./dom.js";

const VIEWS = {
  browse: () => import("./browse.js"),
  file: () => import("./file.js"),
  search: () => import("./search.js"),
  events: () => import("./search.js"),
  event: () => import("./event.js"),
  nights: () => import("./nights.js"),
  reports: () => import("./reports.js"),
  about: () => import("./about.js"),
};
const main = document.getElementById("main");
let turn = 0;

async function show(focus) {
  const mine = ++turn;
  leave();
  const name = location.pathname.split("/")[1] || "browse";
  for (const item of document.querySelectorAll("header nav a")) {
    const on = item.pathname.slice(1) === { file: "browse", event: "events" }[name] || item.pathname.slice(1) === name;
    if (on) item.setAttribute("aria-current", "page");
    else item.removeAttribute("aria-current");
  }
  let content;
  try {
    if (!Object.hasOwn(VIEWS, name)) throw Object.assign(new Error("There is no page at this address."), { status: 404 });
    const view = await VIEWS[name]();
    content = await view.default({ name, path: location.pathname, parameters: new URLSearchParams(location.search), go });
  } catch (error) {
    if (error.name === "AbortError") return;
    content = [h("h1", {}, error.status === 404 ? "Not here" : "That did not work"), problem(error)];
  }
  if (mine !== turn) return;
  main.replaceChildren(...[content].flat(Infinity).filter(Boolean));
  const title = main.querySelector("h1")?.textContent;
  document.title = title ? `${title} – apbatch` : "apbatch";
  if (focus) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

export function go(address, replace = false) {
  history[replace ? "replaceState" : "pushState"](null, "", address);
  return show(!replace);
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("a[href]");
  if (!target || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (target.origin !== location.origin || target.target || target.hasAttribute("download")) return;
  if (target.pathname.startsWith("/api/") || target.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  go(target.href);
});
addEventListener("popstate", () => show(true));
once("").then((about) => {
  if (about.authentication) document.getElementById("who").textContent = about.who.name === "anyone" ? "Sign in" : about.who.name;
}, () => {});
show(false);
export { ask };
