// What the service is asked, by all workers, measured since the overview was opened.

import { lineChart } from "./charts.js";
import { byId, make } from "./elements.js";
import { get } from "./server.js";

const POLL_MILLISECONDS = 2000;
const MAX_SAMPLES = 60;
const OF_THE_PAGE = /^\/(dashboard|static|customers?$|$)/;

const samples = [];
let timer = null;

/** Upper bound of the bucket that holds the quantile, of the answers counted between two samples. */
function quantile(now, then, wanted) {
  const bounds = Object.keys(now).filter((name) => name.startsWith("le_")).map((name) => [parseFloat(name.slice(3)) || Infinity, name])
    .sort((a, b) => a[0] - b[0]);
  const n = now.n - (then.n ?? 0);
  if (n <= 0) return null;
  const found = bounds.find(([, name]) => now[name] - (then[name] ?? 0) >= wanted * n);
  return found && Number.isFinite(found[0]) ? 1000 * found[0] : null;
}

/** Measure for as long as the overview is shown. */
export async function watchTraffic() {
  clearTimeout(timer);
  if (!byId("traffic")) return;
  try {
    const { routes } = await get("/dashboard/traffic", { isQuiet: true, isShared: true });
    const total = { n: 0, n_server_errors: 0 };
    for (const [route, counts] of Object.entries(routes)) {
      if (OF_THE_PAGE.test(route)) continue;
      for (const [name, value] of Object.entries(counts)) total[name] = (total[name] ?? 0) + value;
    }
    samples.push({ at: performance.now(), ...total });
    if (samples.length > MAX_SAMPLES + 1) samples.shift();
    showTraffic();
  } catch (error) {
    byId("traffic")?.replaceChildren(make("p", { text: `Not known: ${error.message}` }));
  }
  timer = setTimeout(watchTraffic, POLL_MILLISECONDS);
}

function showTraffic() {
  const steps = samples.slice(1).map((now, index) => [now, samples[index]]);
  const seconds = (at) => `${Math.round((performance.now() - at) / 1000)} s ago`;
  const chart = (title, unit, value) => {
    const points = steps.map(([now, then]) => ({ label: seconds(now.at), value: value(now, then) }));
    const last = points.at(-1)?.value ?? null;
    return make("figure", {}, make("figcaption", { text: title }),
      make("div", { class: "big", text: last === null ? "–" : `${last.toLocaleString("en", { maximumFractionDigits: 1 })} ${unit}` }),
      lineChart(points, { height: 60, description: `${title} over the last ${points.length} samples` }));
  };
  byId("traffic")?.replaceChildren(
    chart("Requests", "a second", (now, then) => (now.n - then.n) / ((now.at - then.at) / 1000)),
    chart("Half are answered within", "ms", (now, then) => quantile(now, then, 0.5)),
    chart("99 of 100 are answered within", "ms", (now, then) => quantile(now, then, 0.99)),
    chart("Errors of the server", "a second", (now, then) => (now.n_server_errors - then.n_server_errors) / ((now.at - then.at) / 1000)));
}
