// What is asked of the service, and of no other host.

let waiting = 0;

function wait(change) {
  waiting += change;
  document.documentElement.classList.toggle("is-waiting", waiting > 0);
}

let view = new AbortController();

/** Give up what the view before is still waiting for, so that a late answer is not shown in another view. */
export function startView() {
  view.abort();
  view = new AbortController();
}

export const isGivenUp = (error) => error.name === "AbortError";

/**
 * The JSON of an answer; an error has the service's "message", "code" and "status".
 *
 * isQuiet: nobody waits for it. isShared: views after this one want it too.
 */
export async function get(path, { isQuiet = false, isShared = false } = {}) {
  if (!isQuiet) wait(1);
  try {
    const response = await fetch(path, { credentials: "same-origin", signal: isShared ? null : view.signal });
    const body = await response.json();
    if (!response.ok) throw Object.assign(new Error(body.error.message), { ...body.error, status: response.status });
    return body;
  } catch (error) {
    if (error.status || isGivenUp(error)) throw error;
    throw Object.assign(new Error("The service does not answer. Is it running, and is this computer connected?"), { code: "no_answer" });
  } finally {
    if (!isQuiet) wait(-1);
  }
}

/** Longest part of an id that lists are searched for. */
export const LONGEST_PART = 200;

const KEEP_MILLISECONDS = 60_000;
let known = null;

/** Ask for the release anew. */
export function forgetRelease() { known = null; }

/** What the dashboard shows of the release; kept for a minute. */
export async function releaseData() {
  if (!known || performance.now() - known.at > KEEP_MILLISECONDS) {
    known = { at: performance.now(), data: get("/dashboard/data", { isShared: true }) };
  }
  try {
    return await known.data;
  } catch (error) {
    forgetRelease();
    throw error;
  }
}

/** Address with the parameters that have a value. */
export function address(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

export const listAddress = (parameters) => address("/customers", parameters);
// Whoever's browser writes 1,5 has, as a rule, a spreadsheet that does.
const hasDecimalComma = (1.5).toLocaleString().includes(",");
export const csvAddress = (parameters) => address("/v1/customers.csv",
  { ...parameters, bom: "true", decimal_comma: hasDecimalComma ? "true" : "" });
export const customerAddress = (id) => address("/customer", { id });
