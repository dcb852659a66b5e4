// A list of customers. Its address says which: it can be shared, reloaded and gone back to.

import { customerTable } from "./columns.js";
import { byId, link, make, quiet, scrolling } from "./elements.js";
import { describeFilters, fillForm, filterForm, PARAMETERS } from "./filters.js";
import { go, goInstead } from "./navigation.js";
import { address, csvAddress, forgetRelease, get, isGivenUp, listAddress } from "./server.js";
import { counted, day, money, number, snapshotName } from "./words.js";

const USUAL_ORDER = "-value_at_stake";
const PAGE = 50;
let shown = null;
const isWide = matchMedia("(min-width: 60rem)");

/** The parameters of an address, without those that a list does not know. */
function parametersOf(search) {
  const given = new URLSearchParams(search);
  const known = Object.fromEntries(PARAMETERS.map((name) => [name, given.get(name) ?? ""]).filter(([, value]) => value));
  return { ...known, sort: given.get("sort") || USUAL_ORDER };
}

function title(parameters, nameOf) {
  if (parameters.at_risk === "true") return "Customers at risk";
  if (parameters.moved_from && parameters.moved_from !== "none") return `Customers who left ${nameOf(parameters.moved_from)}`;
  return parameters.segment ? nameOf(parameters.segment) : "Customers";
}

/** Links to the pages around one; who came by a shared address has no pages before it to go back to. */
function pager({ found, parameters, cursors, cursor }) {
  const step = (text, rel, to, trail) => link(listAddress({ ...parameters, cursor: to }), text,
    { class: "button pale", rel, "data-state": JSON.stringify({ cursors: trail }) });
  const steps = [];
  const first = cursors.length * PAGE + 1, isShared = cursor && !cursors.length;
  if (isShared) steps.push(step("To the first page", "prev", "", []));
  else if (cursors.length) steps.push(step("Back", "prev", cursors.at(-1), cursors.slice(0, -1)));
  if (!isShared) steps.push(`${number(first)}–${number(first + found.customers.length - 1)} of ${number(found.n_customers)}`);
  if (found.next) steps.push(step("Next", "next", found.next, [...cursors, cursor ?? ""]));
  return steps;
}

/** Show the list that an address asks for; "state" has the cursors of the pages before it. */
export async function showCustomers(data, { search, state }) {
  const parameters = parametersOf(search);
  const cursor = new URLSearchParams(search).get("cursor");
  const names = Object.fromEntries(data.segments.map((one) => [one.segment_id, one.segment_name]));
  const nameOf = (id) => names[id] ?? id;
  const heading = title(parameters, nameOf);
  byId("list-title").textContent = heading;
  byId("chips").replaceChildren(...describeFilters(parameters, nameOf));
  showFilters(parameters, data.segments);
  const list = byId("list");
  list.setAttribute("aria-busy", "true");
  try {
    const found = await get(address("/v1/customers", { ...parameters, limit: PAGE, cursor }));
    byId("list-note").textContent = state?.isAnew ? "The data were renewed in the meantime: the list starts anew." : "";
    showTotals(found, parameters);
    showRows(found, parameters);
    byId("pager").replaceChildren(...pager({ found, parameters, cursor, cursors: state?.cursors ?? [] }));
  } catch (error) {
    if (isGivenUp(error)) throw error;
    if (error.code === "release_changed") {
      forgetRelease();
      goInstead(listAddress(parameters), { isAnew: true });
      return heading;
    }
    byId("totals").replaceChildren();
    byId("pager").replaceChildren();
    list.replaceChildren(make("p", { role: "alert", text: error.message }), make("p", {}, link("/customers", "Show all customers")));
  }
  list.removeAttribute("aria-busy");
  return heading;
}

/** Keeps the form, so that whoever uses it stays where they are in it. */
function showFilters(parameters, segments) {
  const place = byId("filter-form");
  if (place.firstChild) { fillForm(place.firstChild, parameters); return; }
  byId("filters").open = isWide.matches;
  const form = filterForm(segments, (chosen) => go(listAddress(chosen)));
  place.replaceChildren(form);
  fillForm(form, parameters);
}

function showTotals(found, parameters) {
  const stake = found.value_at_stake ? `, ${money(found.value_at_stake)} at stake` : "";
  byId("totals").replaceChildren(
    make("span", {}, make("strong", { text: `${counted(found.n_customers, "customer")}${stake}` }),
      quiet(` · ${snapshotName(found)}, as of ${day(found.as_of)}`),
      found.n_held_out ? quiet(` · ${counted(found.n_held_out, "more customer")} held out of a running campaign, in no list`) : ""),
    found.n_customers ? link(csvAddress(parameters), "CSV", { class: "button", download: true,
      "aria-label": `CSV of ${counted(found.n_customers, "customer")}` }) : "");
}

/** Keeps the table, so that whoever orders it by a heading stays on that heading. */
function showRows(found, parameters) {
  const list = byId("list");
  if (!found.n_customers) {
    list.replaceChildren(make("p", { text: "No customer is like that. Take a restriction away, or show all customers." }));
    return;
  }
  if (!list.contains(shown?.table)) {
    shown = customerTable({ caption: "Customers", isOrdered: true });
    list.replaceChildren(scrolling("Customers", shown.table));
  }
  shown.fill(found.customers, parameters);
}
