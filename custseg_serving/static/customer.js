// One customer: the segment and why, what could be offered, and the history over the snapshots.

import { historyChart } from "./charts.js";
import { segmentLabel } from "./columns.js";
import { byId, fact, link, make, missing, quiet, scrolling, wordTable } from "./elements.js";
import { get, isGivenUp, listAddress, LONGEST_PART } from "./server.js";
import { day, FEATURES, featureValue, money, number, period, productName, share, snapshotName, withPeriods } from "./words.js";

const HISTORY = ["Snapshot", "Segment", "Days since last order", "Orders", "Spend"];
const NO_ORDER = "no order in the observation window";
const known = (value, shown) => (value === null || value === undefined ? missing(NO_ORDER) : shown(value));

function distance(one) {
  if (one.margin === null) return "decided by rule";
  return one.is_held ? `kept, though another is ${share(-one.margin)} nearer` : share(one.margin);
}

/** What the customer will probably do, each with its interval; nothing in releases that predict nothing. */
function predicted(one) {
  if (!one.intervals) return [];
  const says = (name, title, shown) => {
    const [low, high] = one.intervals[name];
    return fact(title, make("span", {}, shown(one[name]), " ", quiet(`${shown(low)} to ${shown(high)}`)));
  };
  return [
    says("p_order_30d", "Will order within 30 days", share), says("p_order_90d", "Will order within 90 days", share),
    says("expected_orders_90d", "Orders to expect in 90 days", (value) => number(value, 1)),
    says("expected_spend_90d", "Spend to expect in 90 days", (value) => money(value)),
  ];
}

const bullets = (texts) => make("ul", {}, ...texts.map((text) => make("li", { text })));

function showPlacement(one, advice) {
  const before = one.previous ? `before that in ${one.previous.segment_name}` : "from the beginning";
  byId("placement").replaceChildren(
    make("p", { class: "lead" }, segmentLabel(one.segment_id, one.segment_name), " ", quiet(`Since ${period(one.since)}, ${before}.`)),
    make("dl", { class: "facts" },
      ...Object.entries(one.rfm).map(([name, value]) => fact(FEATURES[name][0], known(value, (given) => featureValue(name, given)))),
      fact("Distance from the border", distance(one)), ...predicted(one)),
    make("h3", { text: "Why" }), bullets(one.reasons.map((reason) => withPeriods(reason.text))),
    advice ? make("h3", { text: "What to do" }) : null, advice ? make("p", { text: advice }) : null,
    make("h3", { text: "Could be offered" }),
    one.recommendations.length ? bullets(one.recommendations.map(productName)) : quiet("No offer is known for this customer. Offers need a column of products in the log (product_id)."));
}

function showHistory(snapshots) {
  const rows = snapshots.map((one) => [
    snapshotName(one), segmentLabel(one.segment_id, one.segment_name),
    known(one.recency_days, number), known(one.frequency_orders, number), known(one.monetary_net, (value) => money(value))]);
  byId("history").replaceChildren(historyChart([...snapshots].reverse()),
    scrolling("History over the snapshots", wordTable(HISTORY, rows, "figures")));
}

export async function showCustomer(data, { search }) {
  const id = new URLSearchParams(search).get("id") ?? "";
  byId("customer-title").textContent = id ? `Customer ${id}` : "Which customer?";
  const path = `/v1/customers/${encodeURIComponent(id)}`;
  try {
    const placement = await get(`${path}/segment`);
    const advice = data.segments.find((one) => one.segment_id === placement.segment_id)?.advice ?? null;
    byId("customer-note").textContent = `${snapshotName(placement)}, as of ${day(placement.as_of)}`;
    showPlacement(placement, advice);
    byId("history").setAttribute("aria-busy", "true");
    showHistory((await get(`${path}/history`)).snapshots);
  } catch (error) {
    if (isGivenUp(error)) throw error;
    const place = byId(byId("placement").firstChild ? "history" : "placement");
    place.replaceChildren(make("p", { role: "alert", text: error.message }));
    byId("history-section").hidden = place.id !== "history";
  }
  byId("history").removeAttribute("aria-busy");
  const isPart = id && id.length <= LONGEST_PART;
  byId("alike").replaceChildren(isPart ? link(listAddress({ contains: id }), `Customers whose id contains “${id}”`) : "");
  return id ? `Customer ${id}` : "Customer";
}
