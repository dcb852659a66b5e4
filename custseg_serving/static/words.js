// How values are written: numbers, money, shares, days, snapshots, and the names of what is measured.

const DAY_MILLISECONDS = 86_400_000;
const instantOf = (text) => Date.parse(`${text.slice(0, 10)}Z`);

const shop = { currency: null, periodDays: 31 };

/** Take over what the release says about money and about the length of its periods. */
export function speakOf(data) {
  const { as_of: asOf, period_end: end, period } = data.manifest;
  shop.currency = data.currency ?? null;
  shop.periodDays = Math.round((instantOf(end ?? asOf) - instantOf(period)) / DAY_MILLISECONDS);
}

/** Days in a period of the shop. */
export const periodDays = () => shop.periodDays;

const withMinus = (text) => text.replace("-", "−");
const digitsOf = (digits) => ({ minimumFractionDigits: digits, maximumFractionDigits: digits });

export const number = (value, digits = 0) => withMinus(value.toLocaleString("en", digitsOf(digits)));

/** "1 customer", "2,854 customers". */
export const counted = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

/** An amount, with its currency where that is known. */
export function money(value, digits = 0) {
  if (!shop.currency) return number(value, digits);
  try {
    return withMinus(value.toLocaleString("en", { style: "currency", currency: shop.currency, ...digitsOf(digits) }));
  } catch {
    return `${number(value, digits)} ${shop.currency}`;
  }
}

export const signedMoney = (value) => (value > 0 ? `+${money(value)}` : money(value));

export function share(value) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && Math.abs(value) < 0.0005) return "≈0 %";
  return `${number(100 * value, value !== 0 && Math.abs(value) < 0.0995 ? 1 : 0)} %`;
}

export const precise = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(3))));

const written = (options) => {
  const format = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options });
  return (text) => format.format(instantOf(text));
};
export const day = written({ day: "numeric", month: "long", year: "numeric" });
const month = written({ month: "long", year: "numeric" });

/** A day some days later, as "2025-02-01". */
export const later = (text, days) => new Date(instantOf(text) + DAY_MILLISECONDS * days).toISOString().slice(0, 10);

/** A snapshot or period by its key: "January 2025", "week of 6 January 2025" or "6 January 2025". */
export function period(key) {
  if (shop.periodDays > 7) return month(key);
  return shop.periodDays > 1 ? `week of ${day(key)}` : day(key);
}

/** A snapshot by its period, "so far" where that is not over. */
export const snapshotName = (one) => `${period(one.period)}${one.is_open ? " so far" : ""}`;

/** Every key of a period in a text of the service, written for people; those in the ids of models stay. */
export const withPeriods = (text) => text.replace(/(?<![\w-])\d{4}-\d{2}-\d{2}(?![\w-])/g, (key) => period(key));

/** Reasons of the service as one sentence. */
export function sentence(reasons) {
  const text = withPeriods(reasons.map((one) => one.replace(/\.$/, "")).join("; "));
  return text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "";
}

export const FEATURES = {
  recency_days: ["Days since last order", (value) => number(value)],
  frequency_orders: ["Orders", (value) => number(value, Number.isInteger(value) ? 0 : 1)],
  monetary_net: ["Net spend", (value) => money(value)],
  avg_order_value: ["Spend per order", (value) => money(value)],
  n_products: ["Products", (value) => number(value, Number.isInteger(value) ? 0 : 1)],
  tenure_days: ["Days since first order in this time", (value) => number(value)],
  days_between_orders: ["Days between orders", (value) => number(value)],
  cancellation_rate: ["Cancelled", share],
};

export const featureName = (name) => FEATURES[name]?.[0] ?? name.replaceAll("_", " ");
export const featureValue = (name, value) => (FEATURES[name]?.[1] ?? precise)(value);

export const productName = (one) => (one.description ? `${one.description} (${one.product_id})` : one.product_id);

export const CAUSES = {
  behaviour: "by their behaviour", border: "at a border between segments", "model change": "only because the model changed",
};

export const SCORES = {
  psi: "Distribution (population stability index)", wasserstein: "Distance moved (Wasserstein)",
  share_shift: "Change of share", correlation_shift: "Change of correlation",
};
