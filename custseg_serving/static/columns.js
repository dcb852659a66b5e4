// The columns of every list of customers, and the table that they make.

import { dot } from "./colours.js";
import { link, make, missing } from "./elements.js";
import { customerAddress, listAddress } from "./server.js";
import { CAUSES, counted, money, number, period, share, signedMoney } from "./words.js";

const NO_ORDER = "no order in the observation window", NOT_PREDICTED = "nothing predicted in this release";

/** A segment's name beside its colour. */
export function segmentLabel(id, name) {
  return make("span", { class: "segment-label" }, dot(id), make("span", { text: name }));
}

function before(one) {
  if (!one.previous) return missing("in this segment from the beginning");
  const label = segmentLabel(one.previous.segment_id, one.previous.segment_name);
  if (!one.moved_from) return label;
  const cause = CAUSES[one.cause] ?? "for a cause that is not known";
  return make("span", {}, label, make("small", { class: "quiet", text: `moved now, ${cause}` }));
}

/** A text of which a list shows two lines, and the customer's page all. */
const short = (text) => make("span", { class: "short", title: text, text });

function offers(products) {
  if (!products.length) return missing("no offer known");
  return short(products.map((one) => one.description ?? one.product_id).join(", "));
}

const value = (shown, why) => (given) => (given === null || given === undefined ? missing(why) : make("span", { text: shown(given) }));
const spend = value((given) => money(given), NO_ORDER);

/** name: of the field; sort: the field to sort by, "-" first where the largest come first. */
const COLUMNS = [
  { name: "customer_id", title: "Customer", sort: "customer_id", show: (one) => link(customerAddress(one.customer_id), one.customer_id) },
  { name: "segment", title: "Segment", show: (one) => segmentLabel(one.segment_id, one.segment_name) },
  { name: "since", title: "Since", sort: "-since", show: (one) => value(period, "not known")(one.since) },
  { name: "previous", title: "Before that", show: before },
  { name: "recency_days", title: "Last order", sort: "recency_days", isNumber: true,
    show: (one) => value((days) => `${counted(days, "day")} ago`, NO_ORDER)(one.recency_days) },
  { name: "frequency_orders", title: "Orders", sort: "-frequency_orders", isNumber: true,
    show: (one) => value((n) => number(n), NO_ORDER)(one.frequency_orders) },
  { name: "monetary_net", title: "Spend", sort: "-monetary_net", isNumber: true, show: (one) => spend(one.monetary_net) },
  { name: "spend_change", title: "Change", sort: "spend_change", isNumber: true,
    show: (one) => value(signedMoney, "not known at the snapshot before")(one.spend_change) },
  { name: "value_at_stake", title: "At stake", sort: "-value_at_stake", isNumber: true,
    show: (one) => value((given) => money(given), "nothing at stake")(one.value_at_stake) },
  { name: "p_order_30d", title: "Will order (30 d)", sort: "-p_order_30d", isNumber: true,
    show: (one) => value(share, NOT_PREDICTED)(one.p_order_30d) },
  { name: "expected_spend_90d", title: "To expect (90 d)", sort: "-expected_spend_90d", isNumber: true,
    show: (one) => value((given) => money(given), NOT_PREDICTED)(one.expected_spend_90d) },
  { name: "advice", title: "What to do", isText: true, show: (one) => (one.advice ? short(one.advice) : missing("no advice")) },
  { name: "recommendations", title: "Could be offered", isText: true, show: (one) => offers(one.recommendations) },
];

/** Choices of an order, for a list that shows no headings. */
export const ORDERS = [
  ["-value_at_stake", "most at stake first"], ["-monetary_net", "highest spend first"], ["monetary_net", "lowest spend first"],
  ["spend_change", "largest fall in spend first"], ["-spend_change", "largest rise in spend first"],
  ["-frequency_orders", "most orders first"], ["recency_days", "ordered most recently first"],
  ["-recency_days", "ordered longest ago first"], ["-since", "newest in their segment first"],
  ["since", "longest in their segment first"], ["-p_order_30d", "most likely to order first"],
  ["-expected_spend_90d", "most expected spend first"], ["customer_id", "by customer id"],
];

const reversed = (sort) => (sort.startsWith("-") ? sort.slice(1) : `-${sort}`);

/**
 * A table of customers; on a phone each row is a card.
 *
 * names: columns to show, all by default. isOrdered: whether headings are links to the list in their order.
 * Returns the table, and a function that fills it with the customers of a list with some parameters.
 */
export function customerTable({ caption, names = null, isOrdered = false }) {
  const columns = COLUMNS.filter((one) => !names || names.includes(one.name));
  const heads = columns.map((one) => make("th", { scope: "col", role: "columnheader", class: one.isNumber ? "number" : null },
    one.sort && isOrdered ? link("#", one.title, { class: "order" }) : make("span", { text: one.title })));
  const body = make("tbody", { role: "rowgroup" });
  const table = make("table", { class: "customers cards", role: "table" }, make("caption", { class: "hidden", text: caption }),
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)), body);

  const orderHeads = (parameters) => columns.forEach((one, at) => {
    if (!one.sort) return;
    const order = parameters.sort;
    const isThis = order.replace(/^-/, "") === one.sort.replace(/^-/, "");
    if (isThis) heads[at].setAttribute("aria-sort", order.startsWith("-") ? "descending" : "ascending");
    else heads[at].removeAttribute("aria-sort");
    heads[at].firstChild.href = listAddress({ ...parameters, sort: isThis ? reversed(order) : one.sort });
  });

  const fill = (customers, parameters = {}) => {
    if (isOrdered) orderHeads(parameters);
    body.replaceChildren(...customers.map((one) => make("tr", { role: "row" }, ...columns.map((column, at) => {
      const content = column.show(one);
      const kind = [column.isNumber && "number", column.isText && "text", content.classList.contains("missing") && "is-missing"];
      return make(at ? "td" : "th", { scope: at ? null : "row", role: at ? "cell" : "rowheader", "data-title": column.title,
        class: kind.filter(Boolean).join(" ") || null }, content);
    }))));
  };
  return { table, fill };
}
