// Who moved between segments since the snapshot before: a matrix of which every cell opens its list.

import { byId, link, make, scrolling } from "./elements.js";
import { csvAddress, listAddress } from "./server.js";
import { CAUSES, counted, number, period, share, snapshotName } from "./words.js";

const isMove = (one) => one.from_segment_id !== null && one.from_segment_id !== one.to_segment_id;
const total = (moves) => moves.reduce((sum, one) => sum + one.n_customers, 0);

/** What a release says about moves, in sentences; releases of earlier versions have neither causes nor rates. */
function note(migrations, data) {
  const { before, moves, causes = {}, moved, to_and_fro: toAndFro } = migrations;
  const changed = `${counted(total(moves.filter(isMove)), "customer")} changed segment`;
  const why = Object.entries(causes).filter(([, n]) => n).map(([cause, n]) => `${number(n)} ${CAUSES[cause] ?? cause}`);
  const said = [`From ${period(before)} (rows) to ${snapshotName(data)} (columns): ${[changed, ...why].join(", ")}.`];
  if (typeof moved === "number") said.push(`Of the customers in a segment of K-means, ${share(moved)} moved.`);
  if (typeof toAndFro === "number") said.push(`${share(toAndFro)} went to and fro: back to where they were two snapshots ago.`);
  return [...said, "Shading is the share of the row. Every number opens its list."].join(" ");
}

/** The list behind a cell: who moved, who stayed, or who was not known before. */
function cellParameters(from, to) {
  const sort = "-monetary_net";
  if (from === null) return { segment: to, moved_from: "none", sort };
  return from === to ? { segment: to, moved: "false", sort } : { segment: to, moved_from: from, sort };
}

export function showMoves(migrations, segments, data) {
  const { moves } = migrations;
  if (!moves.length) { byId("moves-note").textContent = "This is the first snapshot: nobody can have moved yet."; return; }
  const names = Object.fromEntries(segments.map((one) => [one.segment_id, one.segment_name]));
  const order = segments.map((one) => one.segment_id);
  const place = (id) => (id === null ? order.length + 1 : order.includes(id) ? order.indexOf(id) : order.length);
  const idsOf = (field) => [...new Set(moves.map((one) => one[field]))].sort((a, b) => place(a) - place(b));
  const columns = idsOf("to_segment_id");
  const said = (id) => (id === null ? "Not known before" : names[id] ?? id);
  byId("moves-note").textContent = note(migrations, data);

  const cell = (from, to, rowTotal) => {
    const n = total(moves.filter((one) => one.from_segment_id === from && one.to_segment_id === to));
    if (!n) return make("td", { class: "none", text: "·", "aria-label": "none" });
    const background = `rgb(var(--more) / ${(0.5 * n / rowTotal).toFixed(2)})`;
    const what = from === to ? `${said(to)}: stayed` : `${said(from)} → ${said(to)}`;
    return make("td", { style: { background } }, link(listAddress(cellParameters(from, to)), number(n),
      { tip: `${what}\n${number(n)} customers, ${share(n / rowTotal)} of the row` }));
  };
  const leavers = (from) => {
    const n = total(moves.filter((one) => isMove(one) && one.from_segment_id === from));
    if (!n) return make("td", { class: "none", text: "·", "aria-label": "none" });
    const list = { moved_from: from, sort: "-monetary_net" };
    return make("td", { class: "left" },
      link(listAddress(list), number(n), { "aria-label": `${number(n)} left ${said(from)}` }), " ",
      link(csvAddress(list), "CSV", { download: true, class: "small", "aria-label": `CSV of the ${number(n)} who left ${said(from)}` }));
  };
  const table = make("table", { class: "heat" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "From ↓ to →" }),
      make("th", { scope: "col", text: "All who left" }), ...columns.map((id) => make("th", { scope: "col", text: said(id) })))),
    make("tbody", {}, ...idsOf("from_segment_id").map((from) => {
      const rowTotal = total(moves.filter((one) => one.from_segment_id === from));
      return make("tr", {}, make("th", { scope: "row", text: said(from) }), leavers(from), ...columns.map((to) => cell(from, to, rowTotal)));
    })));
  byId("moves").replaceChildren(scrolling("Who moved between segments", table));
}
