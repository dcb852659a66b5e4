// Who the customers are: each segment with what is at stake, its shares, and what is typical of it.

import { shareBar } from "./charts.js";
import { colourOf, dot } from "./colours.js";
import { byId, link, make, missing, quiet, scrolling } from "./elements.js";
import { address, get, isGivenUp, listAddress } from "./server.js";
import { counted, FEATURES, featureValue, money, number, period, productName, withPeriods } from "./words.js";

/** The numbers of customers who came to and left a segment since the snapshot before. */
function exchange(moves, id) {
  const total = (rows) => rows.reduce((sum, one) => sum + one.n_customers, 0);
  const isMove = (one) => one.from_segment_id !== null && one.from_segment_id !== one.to_segment_id;
  return {
    left: total(moves.filter((one) => isMove(one) && one.from_segment_id === id)),
    came: total(moves.filter((one) => isMove(one) && one.to_segment_id === id)),
  };
}

/** Each segment with who is at risk in it, null where that is not known, in the order of what is at stake. */
export async function withStakes(segments) {
  const known = await Promise.all(segments.map(async (one) => {
    const atRisk = await get(address("/v1/customers", { segment: one.segment_id, at_risk: "true", limit: 1 })).catch((error) => {
      if (isGivenUp(error)) throw error;
      return null;
    });
    return { ...one, n_at_risk: atRisk?.n_customers ?? null, value_at_stake: atRisk?.value_at_stake ?? null };
  }));
  return known.sort((a, b) => b.value_at_stake - a.value_at_stake || b.revenue_net - a.revenue_net);
}

function stakeOf(one) {
  if (one.value_at_stake === null) return make("p", { class: "stake" }, missing("not known of this release"), " at stake");
  if (!one.n_at_risk) return make("p", { class: "stake quiet", text: "nobody at risk" });
  const list = listAddress({ segment: one.segment_id, at_risk: "true", sort: "-value_at_stake" });
  return make("p", { class: "stake" }, make("strong", { class: "big", text: money(one.value_at_stake) }), " at stake with ",
    link(list, `${number(one.n_at_risk)} at risk`, { "aria-label": `${number(one.n_at_risk)} at risk in ${one.segment_name}` }));
}

/** What the segment's customers buy more than the shop's. */
function boughtMore({ products }) {
  if (!products?.length) return null;
  const times = (one) => make("span", { text: `${productName(one)}, ${number(one.lift, 1)} times as often`,
    tip: `${counted(one.n_buyers, "customer")} of the segment bought it; it is surely ${number(one.lift_low, 2)} times as large a part of what they buy` });
  return make("p", { class: "about" }, "Buys more than others: ",
    ...products.slice(0, 3).flatMap((one, at) => (at ? ["; ", times(one)] : [times(one)])), ".");
}

/** What the next 90 days will probably bring, the segment that will bring most first. */
export function showExpected(segments, { expected }) {
  const total = expected?.find((one) => one.target === "spend_90d");
  byId("expected-section").hidden = !total;
  if (!total) return;
  const sum = segments.reduce((so_far, one) => so_far + one.expected_spend_90d, 0);
  const ordered = [...segments].sort((a, b) => b.expected_spend_90d - a.expected_spend_90d);
  const row = (one) => make("tr", {},
    make("th", { scope: "row" }, make("span", { class: "segment-label" }, dot(one.segment_id),
      link(listAddress({ segment: one.segment_id, sort: "-expected_spend_90d" }), one.segment_name))),
    make("td", {}, make("div", { class: "bars" },
      shareBar("", sum ? one.expected_spend_90d / sum : 0, money(one.expected_spend_90d), colourOf(one.segment_id)))),
    make("td", { class: "number", text: number(one.expected_orders_90d) }));
  const range = total.level_low === null ? "with too little history for an interval"
    : `${money(total.level_low)} to ${money(total.level_high)}, as far as earlier predictions missed`;
  byId("expected").replaceChildren(
    make("p", { class: "lead" }, make("strong", { class: "big", text: money(sum) }), " from all customers ", quiet(`(${range})`)),
    scrolling("Spend and orders to expect in 90 days", make("table", { class: "expected" },
      make("thead", {}, make("tr", {}, ...["Segment", "Spend to expect", "Orders"].map((text) => make("th", { scope: "col", text })))),
      make("tbody", {}, ...ordered.map(row)))),
    make("p", { class: "quiet", text: withPeriods(total.reason) }));
}

function movers(n, verb, { segment_name: name }, parameters) {
  if (!n) return null;
  const [text] = verb.split(" ");
  return link(listAddress({ ...parameters, sort: "-monetary_net" }), `${number(n)} ${text}`, { "aria-label": `${number(n)} ${verb} ${name}` });
}

/** Show segments in their order. */
export function showSegments(segments, { moves, before }) {
  byId("segments").replaceChildren(...segments.map((one) => {
    const id = one.segment_id, list = listAddress({ segment: id, sort: "-monetary_net" });
    const { left, came } = exchange(moves, id);
    return make("article", { class: "segment" },
      make("h3", {}, dot(id), link(list, one.segment_name), make("small", { class: "quiet", text: id })),
      stakeOf(one),
      make("div", { class: "bars" },
        shareBar("customers", one.share_customers, counted(one.n_customers, "person", "people"), colourOf(id)),
        shareBar("spend", one.share_revenue, money(one.revenue_net ?? 0), colourOf(id))),
      make("p", { class: "about" }, make("strong", { text: one.advice }), " ", quiet(withPeriods(one.description))),
      boughtMore(one),
      before === null || (!left && !came) ? null : make("p", { class: "links" },
        movers(left, "left", one, { moved_from: id }), movers(came, "came to", one, { segment: id, moved: "true" }),
        quiet(`since ${period(before)}`)));
  }));
}

/** The median over customers of their segments' medians: what "typical" means beside the heatmap. */
function typical(segments, feature) {
  const known = segments.filter((one) => one[`median_${feature}`] !== null)
    .map((one) => [one[`median_${feature}`], one.n_customers]).sort((a, b) => a[0] - b[0]);
  let left = known.reduce((sum, [, n]) => sum + n, 0) / 2;
  for (const [value, n] of known) { left -= n; if (left <= 0) return value; }
  return null;
}

export function showHeatmap(segments) {
  const features = Object.keys(FEATURES).filter((name) => segments.some((one) => (one[`median_${name}`] ?? null) !== null));
  const middle = Object.fromEntries(features.map((name) => [name, typical(segments, name)]));
  const shown = segments.filter((one) => features.some((name) => (one[`median_${name}`] ?? null) !== null));
  const cell = (one, name) => {
    const value = one[`median_${name}`];
    if (value === null) return make("td", {}, missing("no order in the observation window"));
    const small = name === "cancellation_rate" ? 0.05 : 1;
    const distance = Math.log2((Math.max(value, 0) + small) / (Math.max(middle[name], 0) + small));
    const strength = Math.min(Math.abs(distance) / 4, 0.5);
    const background = `rgb(var(${distance > 0 ? "--more" : "--less"}) / ${strength.toFixed(2)})`;
    return make("td", { style: { background } }, make("span", {
      text: featureValue(name, value),
      tip: `${one.segment_name}: ${FEATURES[name][0]} ${featureValue(name, value)}\ntypical customer: ${featureValue(name, middle[name])}`,
    }));
  };
  const table = make("table", { class: "heat" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "Segment" }),
      ...features.map((name) => make("th", { scope: "col", text: FEATURES[name][0] })))),
    make("tbody", {}, ...shown.map((one) => make("tr", {},
      make("th", { scope: "row" }, link(listAddress({ segment: one.segment_id, sort: "-monetary_net" }), one.segment_name)),
      ...features.map((name) => cell(one, name))))));
  const others = segments.filter((one) => !shown.includes(one)).map((one) => one.segment_name);
  byId("heatmap").replaceChildren(scrolling("What is typical of each segment", table),
    others.length ? make("p", { class: "quiet", text: `Without an order in the observation window: ${others.join(", ")}.` }) : "");
}
