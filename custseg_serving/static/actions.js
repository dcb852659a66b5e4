// What a marketer opens the page for: who to write to this week, and whether what it says is still true.

import { customerTable } from "./columns.js";
import { newestReport, VERDICTS } from "./drift.js";
import { badge, byId, link, make, quiet } from "./elements.js";
import { address, csvAddress, get, isGivenUp, listAddress } from "./server.js";
import { counted, day, later, money, number, period, periodDays } from "./words.js";

const AT_RISK = { at_risk: "true", sort: "-value_at_stake" };
const FIRST = 5;

export async function showWhoToWriteTo() {
  const place = byId("write-to");
  try {
    const found = await get(address("/v1/customers", { ...AT_RISK, limit: FIRST }));
    if (!found.n_customers && !found.n_held_out) {
      place.replaceChildren(make("p", { text: "Nobody is at risk: every good customer has ordered lately." }));
      return;
    }
    const { table, fill } = customerTable({ caption: "Customers at risk with most at stake",
      names: ["customer_id", "segment", "recency_days", "monetary_net", "value_at_stake", "p_order_30d", "expected_spend_90d", "recommendations"] });
    fill(found.customers);
    const everybody = counted(found.n_customers, "customer");
    place.replaceChildren(
      make("p", { class: "lead" }, make("strong", { class: "big", text: everybody }), make("span", { text: " at risk, " }),
        make("strong", { class: "big", text: money(found.value_at_stake) }), make("span", { text: " at stake" }),
        found.n_held_out ? quiet(` · ${counted(found.n_held_out, "more customer")} held out of a running campaign`) : ""),
      table,
      make("p", { class: "links" }, link(listAddress(AT_RISK), `All ${number(found.n_customers)} of them`, { class: "button" }),
        link(csvAddress(AT_RISK), "CSV", { class: "button pale", download: true, "aria-label": `CSV of the ${everybody} at risk` })));
  } catch (error) {
    if (isGivenUp(error)) throw error;
    place.replaceChildren(make("p", { role: "alert", text: error.message }));
  }
}

function dataLine({ as_of: asOf, period: key, is_open: isOpen, staleness, manifest }) {
  const last = later(asOf, -1);
  if (manifest.is_demo) {
    return ["The data", "", "Invented", `As of ${day(asOf)}: orders of the demo's shop from ${day(manifest.window_start)} to the end of ${day(last)} count.`];
  }
  const isDue = staleness.age_days >= periodDays();
  const [kind, word] = staleness.is_stale ? ["bad", "Overdue"] : isDue ? ["warn", "Due"] : ["good", "Fresh"];
  const age = staleness.age_days < 0 ? "" : `, ${counted(staleness.age_days, "day")} ago`;
  const open = isOpen ? `; ${period(key)} is not over yet` : "";
  const todo = { Overdue: "The next data should have come long ago: ask for a new run.", Due: "The next data are due.", Fresh: "" }[word];
  const since = day(manifest.window_start);
  return ["The data", kind, word, `As of ${day(asOf)}${age}: orders from ${since} to the end of ${day(last)} count${open}. ${todo}`];
}

function customersLine({ drift }) {
  if (!drift.length) return ["The customers", "warn", "Not measured", "No drift has been measured yet."];
  const { verdict } = newestReport(drift)[0];
  const [kind, word, meaning] = VERDICTS[verdict] ?? ["", verdict, ""];
  const subjects = new Set(newestReport(drift).filter((one) => one.is_alert).map((one) => one.subject));
  const text = subjects.size ? `${meaning} ${counted(subjects.size, "thing")} changed.` : meaning;
  return ["The customers", kind, word, text, link("#drift-section", subjects.size ? "What changed" : "What was compared")];
}

function modelLine({ manifest, refused, history }) {
  if (refused) return ["The model", "bad", "Refused", `A newer release was refused, so this is an earlier one: ${refused}`];
  const last = [...history.decisions].sort((a, b) => a.period.localeCompare(b.period)).at(-1);
  const words = { PROMOTE: "promoted in", ROLLBACK: "put back in force in" }[last?.decision] ?? "kept by the last decision,";
  const text = `Trained on ${period(manifest.trained_on)}${last ? `, ${words} ${period(last.period)}` : ""}.`;
  return ["The model", "good", "In force", text, link("#models-section", "Models that were tried")];
}

export function showWhetherTrue(data) {
  const lines = [dataLine(data), customersLine(data), modelLine(data)].map(([name, kind, word, text, more]) => (
    make("div", {}, make("dt", { text: name }), make("dd", {}, badge(kind, word), ` ${text} `, more))));
  byId("still-true").replaceChildren(make("dl", { class: "truths" }, ...lines));
}
