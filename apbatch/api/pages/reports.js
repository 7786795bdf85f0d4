// Jobs, and the reports of jobs, studies and benchmarks.

import { ask } from "./ask.js";
import { facts, h, link, table, time } from "./dom.js";

const PERIOD_MS = 3000;

export default async function ({ parameters }) {
  const name = parameters.get("job");
  if (name) return job(name);
  const [jobs, reports] = await Promise.all([ask("/jobs"), ask("/reports")]);
  const listed = jobs.items.length ? jobTable(jobs.items) : null;
  if (jobs.items.some((row) => row.running)) watch(listed);
  return [
    h("h1", {}, "Jobs and reports"),
    h("h2", {}, "Jobs"),
    listed ?? h("p", { class: "quiet" }, "No job has run here: apbatch run JOB.yaml"),
    h("h2", {}, "Reports"),
    reports.items.length
      ? table([
          { name: "title", cell: (row) => h("a", { href: `/api/v1/reports/${row.id.split("/").map(encodeURIComponent).join("/")}`, target: "_blank", rel: "noopener" }, row.title) },
          { name: "kind" },
          { name: "changed", cell: (row) => time(row.changed) },
        ], reports.items, "Reports")
      : h("p", { class: "quiet" }, "There are no reports yet."),
  ];
}

const jobTable = (jobs) => table([
  { name: "name", cell: (row) => h("a", { href: link("/reports", { job: row.name }) }, row.name) },
  { name: "running", title: "state", cell: (row) => h("span", { class: "badge" }, row.running ? "running" : "at rest") },
  { name: "steps_finished", title: "steps finished", number: true },
  { name: "changed", cell: (row) => time(row.changed) },
], jobs, "Jobs");

// While a job runs, what changes in its row is shown, until the view is left; the link that has the focus keeps it.
async function watch(listed) {
  for (let running = true; running; ) {
    await new Promise((resolve) => setTimeout(resolve, PERIOD_MS));
    if (!listed.isConnected) return;
    const jobs = (await ask("/jobs").catch(() => ({ items: [] }))).items;
    running = jobs.some((job) => job.running) || !jobs.length;
    const fresh = new Map([...jobTable(jobs).querySelectorAll("tbody tr")].map((row) => [row.cells[0].textContent, row]));
    for (const row of listed.querySelectorAll("tbody tr")) {
      const now = fresh.get(row.cells[0].textContent);
      [...(now?.cells ?? [])].slice(1).forEach((cell, n) => row.cells[n + 1].replaceChildren(...cell.childNodes));
    }
  }
}

async function job(name) {
  const found = await ask(`/jobs/${encodeURIComponent(name)}`);
  return [
    h("h1", {}, `Job ${name}`),
    h("div", { class: "bar" }, h("a", { href: "/reports" }, "All jobs"), h("span", { class: "badge" }, found.running ? "running" : "at rest")),
    found.steps.map((step) => [
      h("h2", {}, step.step ?? "step"),
      facts([
        ["finished", time(step.made)],
        ["parameters", h("code", {}, JSON.stringify(step.parameters))],
        ["inputs", h("code", {}, JSON.stringify(step.inputs))],
        ["made", h("code", {}, JSON.stringify(step.products))],
        ["versions", h("code", {}, JSON.stringify(step.versions))],
      ]),
    ]),
  ];
}
