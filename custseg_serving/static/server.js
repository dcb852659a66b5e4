// What is asked of the service, and of no other host.

let waiting = 0;

function wait(change) {
  waiting += change;
  document.documentElement.classList.toggle("is-waiting", waiting > 0);
}

/** The JSON of an answer; an error has the service's "message", "code" and "status". */
export async function get(path, { signal, isQuiet = false } = {}) {
  if (!isQuiet) wait(1);
  try {
    const response = await fetch(path, { credentials: "same-origin", signal });
    const body = await response.json();
    if (!response.ok) throw Object.assign(new Error(body.error.message), { ...body.error, status: response.status });
    return body;
  } catch (error) {
    if (error.status || error.name === "AbortError") throw error;
    throw Object.assign(new Error("The service does not answer. Is it running, and is this computer connected?"), { code: "no_answer" });
  } finally {
    if (!isQuiet) wait(-1);
  }
}

let known = null;

/** What the dashboard shows of the release; asked for once, and again after a change of release. */
export async function releaseData({ isNew = false } = {}) {
  if (isNew) known = null;
  known ??= get("/dashboard/data");
  try {
    return await known;
  } catch (error) {
    known = null;
    throw error;
  }
}

/** Address with the parameters that have a value. */
export function address(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

export const listAddress = (parameters) => address("/customers", parameters);
export const csvAddress = (parameters) => address("/v1/customers.csv", { ...parameters, bom: "true" });
export const customerAddress = (id) => address("/customer", { id });
