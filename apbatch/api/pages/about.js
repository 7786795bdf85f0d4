// What this service is, who asks, and how programs use it.

import { ask } from "./ask.js";
import { facts, h } from "./dom.js";

export default async function () {
  const [about, attributes] = await Promise.all([ask(""), ask("/attributes")]);
  const who = about.who;
  return [
    h("h1", {}, "About this service"),
    facts([["apbatch", about.apbatch], ["you are", who.owner ? "the owner of this catalogue" : who.name], ["formats", about.formats.join(", ")]]),
    about.authentication ? session(who) : null,
    h("h2", {}, "For programs"),
    h("p", {}, h("a", { href: about.openapi }, "The OpenAPI document"), " describes everything below ", h("code", {}, "/api/v1"), "."),
    h("pre", { class: "mono" }, `import apbatch as ap\ncat = ap.connect("${location.origin}")\ncat.find("experiment = 'TAIGA'").pandas()`),
    h("h2", {}, "What a query may name"),
    facts(attributes.items.map((one) => [one.name, [one.description, one.unit ? ` (${one.unit})` : "", " ", h("span", { class: "badge" }, one.type)]])),
  ];
}

function session(who) {
  if (who.name !== "anyone")
    return h("form", { method: "post", action: "/sign-out", class: "bar" }, h("button", { class: "plain" }, "Sign out"));
  return [
    h("h2", {}, "Sign in"),
    h("form", { method: "post", action: "/sign-in", class: "bar" },
      h("label", { for: "token" }, "Token"), h("input", { id: "token", name: "token", type: "password", required: true, autocomplete: "current-password" }),
      h("button", { class: "plain main" }, "Sign in")),
    h("p", { class: "quiet" }, "Whoever runs this service makes one: apbatch token create NAME."),
  ];
}
