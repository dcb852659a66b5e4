// What a list is restricted to: its parameters in words, and the form that changes them.

import { link, make } from "./elements.js";
import { listAddress } from "./server.js";
import { ORDERS } from "./columns.js";
import { CAUSES, counted, money, number } from "./words.js";

/** Parameters of a list's address that are passed on to the service. */
export const PARAMETERS = ["contains", "segment", "previous", "moved_from", "moved", "cause", "at_risk", "min_spend", "max_spend",
  "min_orders", "max_orders", "min_recency_days", "max_recency_days"];

const MOVED = { true: "moved since the snapshot before", false: "in the same segment as at the snapshot before" };

/** Each parameter in words. */
function inWords(name, value, nameOf) {
  const amount = Number(value);
  return {
    contains: () => `id contains “${value}”`,
    segment: () => `now in ${nameOf(value)}`,
    previous: () => `before that in ${nameOf(value)}`,
    moved_from: () => (value === "none" ? "not known before" : `just left ${nameOf(value)}`),
    moved: () => MOVED[value] ?? value,
    cause: () => `moved ${CAUSES[value] ?? value}`,
    at_risk: () => (value === "true" ? "at risk" : "not at risk"),
    min_spend: () => `spend from ${money(amount)}`,
    max_spend: () => `spend up to ${money(amount)}`,
    min_orders: () => `from ${counted(amount, "order")}`,
    max_orders: () => `up to ${counted(amount, "order")}`,
    min_recency_days: () => `last order ${number(amount)} or more days ago`,
    max_recency_days: () => `last order within ${counted(amount, "day")}`,
  }[name]();
}

/** What restricts the list, each with a link to the list without it. */
export function describeFilters(parameters, nameOf) {
  return PARAMETERS.filter((name) => parameters[name]).map((name) => {
    const words = inWords(name, parameters[name], nameOf);
    return make("li", {}, link(listAddress({ ...parameters, [name]: "" }), `${words} ×`, { class: "chip", "aria-label": `Remove: ${words}` }));
  });
}

function field(label, control) {
  control.id = `filter-${control.name}`;
  return make("div", {}, make("label", { for: control.id, text: label }), control);
}

const choice = (name, options) => make("select", { name }, ...options.map(([value, text]) => make("option", { value, text })));

function range(label, low, high) {
  const box = (name, words) => make("input", { name, type: "number", step: "any", placeholder: words, "aria-label": `${label} ${words}` });
  return make("fieldset", {}, make("legend", { text: label }), box(low, "from"), box(high, "to"));
}

/** A form for the parameters of a list; "apply" is called with what was chosen. */
export function filterForm(segments, apply) {
  const names = segments.map((one) => [one.segment_id, one.segment_name]);
  const form = make("form", { class: "filters" },
    field("Id contains", make("input", { name: "contains", autocomplete: "off", spellcheck: "false" })),
    field("Segment", choice("segment", [["", "any"], ...names])),
    field("Before that", choice("previous", [["", "any"], ...names])),
    field("Just left", choice("moved_from", [["", "any"], ...names, ["none", "not known before"]])),
    field("Moved", choice("moved", [["", "either"], ["true", "moved"], ["false", "stayed"]])),
    field("Why moved", choice("cause", [["", "any"], ...Object.entries(CAUSES)])),
    field("At risk", choice("at_risk", [["", "either"], ["true", "at risk"], ["false", "not at risk"]])),
    range("Spend", "min_spend", "max_spend"),
    range("Orders", "min_orders", "max_orders"),
    range("Days since last order", "min_recency_days", "max_recency_days"),
    field("Order of the list", choice("sort", ORDERS)),
    make("p", { class: "links" }, make("button", { text: "Show" }), link("/customers", "Show all")));
  form.addEventListener("submit", (event) => { event.preventDefault(); apply(Object.fromEntries(new FormData(form))); });
  return form;
}

/** Let the form say what an address asks for. */
export function fillForm(form, parameters) {
  for (const control of form.querySelectorAll("[name]")) {
    const value = parameters[control.name] ?? "";
    const isUnknown = control.tagName === "SELECT" && ![...control.options].some((one) => one.value === value);
    if (isUnknown) control.append(make("option", { value, text: value }));
    control.value = value;
  }
}
