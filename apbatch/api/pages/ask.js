// Questions to /api/v1. A view that is left takes its questions with it: the server stops looking.

const ATTEMPTS = 3;
let controller = new AbortController();
export function leave() {
  controller.abort();
  controller = new AbortController();
}

export class Problem extends Error {
  constructor(content, status) {
    super(content.detail ?? `status ${status}`);
    Object.assign(this, content, { status });
  }
}

export async function ask(path, parameters = {}, signal = controller.signal) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const address = `/api/v1${path}` + (given.length ? "?" + new URLSearchParams(given) : "");
  let answer;
  // A server behind this one that is being restarted is waited for, as long as the answer asks.
  for (let attempt = 1; ; attempt++) {
    answer = await fetch(address, { headers: { Accept: "application/json" }, signal });
    const wait = answer.status === 503 ? Number(answer.headers.get("retry-after")) : 0;
    if (!wait || attempt === ATTEMPTS) break;
    await new Promise((resolve, reject) => {
      setTimeout(resolve, 1000 * wait);
      signal?.addEventListener("abort", () => reject(signal.reason));
    });
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(content, answer.status);
  return content;
}

const held = new Map();
export function once(path, parameters = {}) {
  const key = path + JSON.stringify(parameters);
  if (!held.has(key)) held.set(key, ask(path, parameters, undefined).catch((error) => (held.delete(key), Promise.reject(error))));
  return held.get(key);
}

export function follow(since, take) {
  const source = new EventSource(`/api/v1/changes?since=${since}`);
  for (const kind of ["new", "changed", "gone", "replica-added", "replica-removed"])
    source.addEventListener(kind, (event) => take(JSON.parse(event.data)));
  controller.signal.addEventListener("abort", () => source.close());
}
