// The dashboard. Everything shown comes from this server, and is put in as text, never as markup.

const N = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const FEATURES = {
  recency_days: ["Days since last order", 0], frequency_orders: ["Orders", 1], monetary_net: ["Net spend", 0],
  avg_order_value: ["Per order", 0], n_products: ["Products", 0], tenure_days: ["Days since first order", 0],
  days_between_orders: ["Days between orders", 0], cancellation_rate: ["Cancelled", "%"],
};
const CAUSES = {
  behaviour: "by their behaviour", border: "at a border between segments", "model change": "only because the model changed",
};
const SCORES = {
  psi: "Population stability index", wasserstein: "Wasserstein distance", share_shift: "Change of share",
  correlation_shift: "Change of correlation",
};
const POLL_MILLISECONDS = 2000;
const MAX_SAMPLES = 60;

const byId = (id) => document.getElementById(id);

/** An element with attributes and children; "text" is its text, "tip" its tooltip on hover and focus. */
function make(name, attributes = {}, ...children) {
  const isSvg = ["svg", "line", "path", "circle", "text", "g"].includes(name);
  const element = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value;
    else if (key === "tip") addTip(element, value);
    else if (key === "style") Object.assign(element.style, value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function addTip(element, text) {
  const tooltip = byId("tooltip");
  const show = () => {
    tooltip.textContent = text;
    tooltip.hidden = false;
    const at = element.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left + at.width / 2 - tooltip.offsetWidth / 2), innerWidth - tooltip.offsetWidth - 8);
    const above = at.top - tooltip.offsetHeight - 8;
    tooltip.style.left = `${left}px`;
    tooltip.style.top = `${above > 0 ? above : at.bottom + 8}px`;
  };
  const hide = () => { tooltip.hidden = true; };
  element.setAttribute("tabindex", "0");
  element.setAttribute("aria-label", text.replaceAll("\n", ", "));
  if (!element.hasAttribute("role") && element.tagName !== "TD") element.setAttribute("role", "img");
  element.addEventListener("pointerenter", show);
  element.addEventListener("pointerleave", hide);
  element.addEventListener("focus", show);
  element.addEventListener("blur", hide);
}

addEventListener("keydown", (event) => { if (event.key === "Escape") byId("tooltip").hidden = true; });

function written(feature, value) {
  if (value === null || value === undefined) return "–";
  const digits = FEATURES[feature]?.[1] ?? 2;
  if (digits === "%") return share(value);
  const needed = digits && !Number.isInteger(value) ? digits : 0;
  return value.toLocaleString("en", { minimumFractionDigits: needed, maximumFractionDigits: needed });
}

const share = (value) => (value === null ? "–" : `${(100 * value).toFixed(Math.abs(value) < 0.1 ? 1 : 0)} %`);
const precise = (value) => (value === null ? "–" : value.toPrecision(3));

async function get(path) {
  const response = await fetch(path, { credentials: "same-origin" });
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(body.error.message), { status: response.status, ...body.error });
  return body;
}

function colours(segments) {
  const ids = segments.map((segment) => segment.segment_id).sort();
  return (id) => `var(--s${Math.max(0, ids.indexOf(id)) % 8})`;
}

function showSegments(segments, colour) {
  const widest = Math.max(...segments.flatMap((one) => [one.share_customers, one.share_revenue ?? 0]), 0.01);
  const bar = (label, value, figure, fill, pale) => make("div", { class: "bar", tip: `${label}: ${figure}, ${share(value)}` },
    make("div", { class: "track" }, make("div", {
      class: pale ? "fill pale" : "fill", style: { width: `${Math.max(0, (100 * (value ?? 0)) / widest)}%`, background: fill },
    })),
    make("span", { text: `${share(value)} · ${figure}` }));
  byId("segments").replaceChildren(...segments.map((one) => make("div", { class: "segment" },
    make("h3", {}, make("span", { class: "dot", style: { background: colour(one.segment_id) } }),
      make("span", { text: `${one.segment_name} (${one.segment_id})` })),
    make("div", {},
      bar(`${one.segment_name}, customers`, one.share_customers, `${N.format(one.n_customers)} people`, colour(one.segment_id), true),
      bar(`${one.segment_name}, revenue`, one.share_revenue, `${N.format(one.revenue_net ?? 0)} spent`, colour(one.segment_id), false)),
    make("p", { class: "quiet", text: `${one.description} ${one.advice}` }))));
}

/** The median over customers of their segments' medians: what "typical" means beside the heatmap. */
function typical(segments, feature) {
  const known = segments.filter((one) => one[`median_${feature}`] !== null)
    .map((one) => [one[`median_${feature}`], one.n_customers]).sort((a, b) => a[0] - b[0]);
  let left = known.reduce((sum, [, n]) => sum + n, 0) / 2;
  for (const [value, n] of known) { left -= n; if (left <= 0) return value; }
  return null;
}

function showHeatmap(segments) {
  const features = Object.keys(FEATURES).filter((name) => segments.some((one) => one[`median_${name}`] !== null));
  const middle = Object.fromEntries(features.map((name) => [name, typical(segments, name)]));
  const cell = (one, name) => {
    const value = one[`median_${name}`];
    if (value === null) return make("td", { text: "–" });
    const small = name === "cancellation_rate" ? 0.05 : 1;
    const distance = Math.log2((Math.max(value, 0) + small) / (Math.max(middle[name], 0) + small));
    const strength = Math.min(Math.abs(distance) / 4, 0.5);
    const background = `rgb(var(${distance > 0 ? "--more" : "--less"}) / ${strength.toFixed(2)})`;
    return make("td", {
      text: written(name, value), style: { background },
      tip: `${one.segment_name}: ${FEATURES[name][0]} ${written(name, value)}\ntypical customer: ${written(name, middle[name])}`,
    });
  };
  byId("heatmap").replaceChildren(make("table", { class: "heat" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "Segment" }),
      ...features.map((name) => make("th", { scope: "col", text: FEATURES[name][0] })))),
    make("tbody", {}, ...segments.map((one) => make("tr", {},
      make("th", { scope: "row", text: one.segment_name }), ...features.map((name) => cell(one, name)))))));
}

function showMigration(migrations, segments, { period, is_open: isOpen }) {
  const { before, moves } = migrations;
  if (!moves.length) { byId("migration-note").textContent = "This is the first snapshot: nobody can have moved yet."; return; }
  const names = Object.fromEntries(segments.map((one) => [one.segment_id, one.segment_name]));
  const order = segments.map((one) => one.segment_id);
  const place = (id) => (id === null ? order.length + 1 : order.includes(id) ? order.indexOf(id) : order.length);
  const rows = [...new Set(moves.map((one) => one.from_segment_id))].sort((a, b) => place(a) - place(b));
  const columns = [...new Set(moves.map((one) => one.to_segment_id))].sort((a, b) => place(a) - place(b));
  const said = (id) => (id === null ? "Not known before" : names[id] ?? id);
  const moved = moves.filter((one) => one.from_segment_id !== null && one.from_segment_id !== one.to_segment_id)
    .reduce((sum, one) => sum + one.n_customers, 0);
  // Releases of earlier versions have no causes.
  const causes = Object.entries(migrations.causes ?? {}).map(([cause, n]) => `${N.format(n)} ${CAUSES[cause] ?? cause}`);
  const why = causes.length ? `, ${causes.join(", ")}` : "";
  // Releases of earlier versions have no rates either, and the first two snapshots lack one.
  const rates = [
    typeof migrations.moved === "number" ? `Of the customers in a segment of K-means, ${share(migrations.moved)} moved.` : "",
    typeof migrations.to_and_fro === "number" ? `${share(migrations.to_and_fro)} went to and fro: back to where they were two snapshots ago.` : "",
  ].filter(Boolean).map((text) => ` ${text}`).join("");
  byId("migration-note").textContent =
    `From the snapshot ${before} (rows) to ${period}${isOpen ? " so far" : ""} (columns): ${N.format(moved)} customers changed segment${why}.${rates} Shading is the share of the row.`;
  byId("migration").replaceChildren(make("table", { class: "heat" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "From ↓ to →" }),
      ...columns.map((id) => make("th", { scope: "col", text: said(id) })))),
    make("tbody", {}, ...rows.map((from) => {
      const ofRow = moves.filter((one) => one.from_segment_id === from);
      const total = ofRow.reduce((sum, one) => sum + one.n_customers, 0);
      return make("tr", {}, make("th", { scope: "row", text: said(from) }), ...columns.map((to) => {
        const n = ofRow.find((one) => one.to_segment_id === to)?.n_customers ?? 0;
        if (!n) return make("td", { text: "·", "aria-label": "none" });
        return make("td", {
          text: N.format(n), style: { background: `rgb(var(--more) / ${(0.5 * n / total).toFixed(2)})` },
          tip: `${said(from)} → ${said(to)}\n${N.format(n)} customers, ${share(n / total)} of the row`,
        });
      }));
    }))));
}

/** A line chart: points are {label, value, threshold?, isAlert?, tip}; null values leave a gap. */
function lineChart(points, { height = 90, description }) {
  const width = 240, left = 4, right = 4, top = 8, bottom = 14;
  const highest = Math.max(...points.flatMap((one) => [one.value ?? 0, one.threshold ?? 0]), 1e-9) * 1.1;
  const x = (index) => left + (points.length < 2 ? 0.5 : index / (points.length - 1)) * (width - left - right);
  const y = (value) => top + (1 - value / highest) * (height - top - bottom);
  const path = (key) => points.map((one, index) => [one[key], index]).filter(([value]) => value !== null && value !== undefined)
    .map(([value, index], number) => `${number ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const marks = points.map((one, index) => one.tip && one.value !== null
    ? make("circle", { class: one.isAlert ? "point alert" : "point", cx: x(index), cy: y(one.value), r: 3.4, tip: one.tip }) : null);
  return make("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": description },
    make("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    make("path", { class: "threshold", d: path("threshold") }), make("path", { class: "series", d: path("value") }), ...marks,
    make("text", { x: left, y: height - 3, text: points[0]?.label ?? "" }),
    make("text", { x: width - right, y: height - 3, "text-anchor": "end", text: points.at(-1)?.label ?? "" }));
}

function showDrift(reports) {
  if (!reports.length) { byId("drift").replaceChildren(make("p", { text: "No drift has been measured yet." })); return; }
  const periods = [...new Set(reports.map((one) => one.period))].sort();
  const ofPeriod = (period) => reports.find((one) => one.period === period);
  byId("verdicts").replaceChildren(make("ul", { class: "verdicts" }, ...periods.map((period) => make("li", {},
    make("span", { class: `verdict ${ofPeriod(period).verdict}`, text: `${period.slice(0, 7)} ${ofPeriod(period).verdict}`,
      tip: `${period}: ${ofPeriod(period).verdict}\n${ofPeriod(period).reasons.join("\n")}` })))));
  const charts = new Map();
  for (const one of reports) {
    const chart = `${one.score_name} ${one.subject}`;
    charts.set(chart, [...(charts.get(chart) ?? []), one]);
  }
  byId("drift").replaceChildren(...[...charts.values()].map((rows) => {
    const [{ score_name: score, subject }] = rows;
    const points = periods.map((period) => {
      const one = rows.find((row) => row.period === period);
      return { label: period.slice(0, 7), value: one?.score ?? null, threshold: one?.threshold ?? null, isAlert: one?.is_alert,
        tip: one && `${period}: ${precise(one.score)}\nthreshold ${precise(one.threshold)}${one.is_alert ? "\nalert" : ""}` };
    });
    return make("figure", {}, make("figcaption", { text: subject.replaceAll("_", " ") },
      make("small", { text: SCORES[score] ?? score.replaceAll("_", " ") })),
      lineChart(points, { description: `${SCORES[score] ?? score} of ${subject} over ${periods.length} snapshots` }));
  }));
}

function showHistory({ decisions, candidates }) {
  const table = (heads, rows) => make("table", { class: "words" }, make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col", text })))),
    make("tbody", {}, ...rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row", text: first }),
      ...rest.map((text) => make("td", { class: "text", text: text ?? "–" }))))));
  byId("history").replaceChildren(
    make("h3", { text: "Promotions" }),
    table(["Snapshot", "Decision", "Challenger", "Champion before", "Why"], decisions.map((one) =>
      [one.period, one.decision, one.model_version, one.champion_before, one.reasons.join("; ")])),
    make("h3", { text: "Numbers of segments tried for the champion" }),
    table(["k", "Silhouette", "Bootstrap ARI", "Worst Jaccard", "Smallest", "Outcome"], candidates.map((one) =>
      [one.k, precise(one.silhouette), precise(one.bootstrap_ari), precise(one.worst_jaccard), share(one.smallest_share),
        `${one.is_chosen ? "chosen: " : one.is_eligible ? "eligible: " : ""}${one.reason}`])));
}

/** Just enough Markdown for a model card: headings, paragraphs, lists and tables. */
function markdown(text) {
  const cells = (line) => line.replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  return text.trim().split(/\n{2,}|\n(?=#)|(?<=^#.*)\n/m).filter((block) => block.trim()).map((block) => {
    const lines = block.trim().split("\n");
    const heading = /^#+\s+(.*)/.exec(lines[0]);
    if (heading) return make("h3", { text: heading[1] });
    const start = lines.findIndex((line) => line.startsWith("|"));
    if (start >= 0) {
      const [head, , ...rows] = lines.slice(start).filter((line) => line.startsWith("|"));
      return make("div", {}, ...lines.slice(0, start).map((line) => make("p", { text: line })), make("table", { class: "words" },
        make("thead", {}, make("tr", {}, ...cells(head).map((cell) => make("th", { scope: "col", text: cell })))),
        make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row).map((cell) => make("td", { class: "text", text: cell })))))));
    }
    if (lines.every((line) => /^[-*] /.test(line))) return make("ul", {}, ...lines.map((line) => make("li", { text: line.slice(2) })));
    return make("div", {}, ...lines.map((line) => make("p", { text: line })));
  });
}

function fact(name, value) { return make("div", {}, make("dt", { text: name }), make("dd", { text: value })); }

function distance(one) {
  if (one.margin === null) return "decided by rule";
  return one.is_held ? `kept, though another is ${share(-one.margin)} nearer` : share(one.margin);
}

async function find(event) {
  event.preventDefault();
  const id = byId("customer").value.trim();
  try {
    const one = await get(`/v1/customers/${encodeURIComponent(id)}/segment`);
    byId("found").replaceChildren(make("div", { class: "result" },
      make("h3", { text: `${one.customer_id}: ${one.segment_name} (${one.segment_id})` }),
      make("p", { class: "quiet", text: `Since ${one.since}${one.previous ? `, before that ${one.previous.segment_name}` : ", from the beginning"}.` }),
      make("ul", {}, ...one.reasons.map((reason) => make("li", { text: reason.text }))),
      make("dl", { class: "facts" },
        ...Object.entries(one.rfm).map(([name, value]) => fact(FEATURES[name][0], written(name, value))),
        fact("Distance from the border", distance(one))),
      one.recommendations.length ? make("p", { text: "Could be offered:" }) : null,
      make("ul", {}, ...one.recommendations.map((product) => make("li", { text: `${product.product_id} ${product.description ?? ""}` })))));
  } catch (error) {
    byId("found").replaceChildren(make("p", { class: "result", text: error.message }));
  }
}

/** Upper bound of the bucket that holds the quantile, of the answers counted between two samples. */
function quantile(now, then, wanted) {
  const bounds = Object.keys(now).filter((name) => name.startsWith("le_")).map((name) => [parseFloat(name.slice(3)) || Infinity, name])
    .sort((a, b) => a[0] - b[0]);
  const n = now.n - (then.n ?? 0);
  if (n <= 0) return null;
  const found = bounds.find(([, name]) => now[name] - (then[name] ?? 0) >= wanted * n);
  return found && Number.isFinite(found[0]) ? 1000 * found[0] : null;
}

const samples = [];
async function watchTraffic() {
  try {
    const { routes } = await get("/dashboard/traffic");
    const total = { n: 0, n_server_errors: 0 };
    for (const [route, counts] of Object.entries(routes)) {
      if (route.startsWith("/dashboard") || route.startsWith("/static") || route === "/") continue;
      for (const [name, value] of Object.entries(counts)) total[name] = (total[name] ?? 0) + value;
    }
    samples.push({ at: performance.now(), ...total });
    if (samples.length > MAX_SAMPLES + 1) samples.shift();
    showTraffic();
  } catch (error) {
    byId("traffic").replaceChildren(make("p", { text: `Not known: ${error.message}` }));
  }
  setTimeout(watchTraffic, POLL_MILLISECONDS);
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
  byId("traffic").replaceChildren(
    chart("Requests", "a second", (now, then) => (now.n - then.n) / ((now.at - then.at) / 1000)),
    chart("Half are answered within", "ms", (now, then) => quantile(now, then, 0.5)),
    chart("99 of 100 are answered within", "ms", (now, then) => quantile(now, then, 0.99)),
    chart("Errors of the server", "a second", (now, then) => (now.n_server_errors - then.n_server_errors) / ((now.at - then.at) / 1000)));
}

function showAll(data) {
  const segments = data.segments.sort((a, b) => (b.revenue_net ?? 0) - (a.revenue_net ?? 0));
  const colour = colours(segments);
  byId("provenance").textContent = `Snapshot ${data.period}${data.is_open ? " so far" : ""}, as of ${data.as_of.slice(0, 10)}${data.is_open ? " (the period is not over)" : ""} · model ${data.model_version} · release ${data.release_id}`;
  const warnings = [];
  if (data.refused) warnings.push(`A newer release was refused: ${data.refused}`);
  if (data.staleness.is_stale) warnings.push(`These segments are stale: the snapshot is ${N.format(data.staleness.age_days)} days old.`);
  byId("alert").hidden = !warnings.length;
  byId("alert").textContent = warnings.join(" ");
  showSegments(segments, colour);
  showHeatmap(segments);
  showMigration(data.migrations, segments, data);
  showDrift(data.drift);
  showHistory(data.history);
  byId("card").replaceChildren(...markdown(data.model_card));
}

async function logIn(event) {
  event.preventDefault();
  const response = await fetch("/login", { method: "POST", body: new URLSearchParams(new FormData(event.target)) });
  if (response.ok) { location.reload(); return; }
  byId("login-error").textContent = (await response.json()).error.message;
}

async function start() {
  byId("login-form").addEventListener("submit", logIn);
  byId("search").addEventListener("submit", find);
  try {
    const data = await get("/dashboard/data");
    showAll(data);
    byId("content").hidden = false;
    byId("logout").hidden = !data.has_session;
    watchTraffic();
  } catch (error) {
    byId("provenance").textContent = error.status === 401 ? "" : error.message;
    byId("login").hidden = error.status !== 401;
  }
}

start();
