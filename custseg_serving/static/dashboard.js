// The dashboard: log-in, search, and the view of the address. Everything shown comes from this server.

import { showCustomer } from "./customer.js";
import { showCustomers } from "./customers.js";
import { byId, make } from "./elements.js";
import { go, startNavigation } from "./navigation.js";
import { showOverview } from "./overview.js";
import { address, customerAddress, get, isGivenUp, listAddress, LONGEST_PART, releaseData, startView } from "./server.js";
import { counted, day, snapshotName, speakOf } from "./words.js";

const VIEWS = {
  "/": ["overview", showOverview],
  "/customers": ["customers", showCustomers],
  "/customer": ["customer", showCustomer],
};

const LOOK_AGAIN_MILLISECONDS = 10_000;

/** What stands above every view: of which snapshot it is, that it is the demo, and warnings. */
function showFrame(data) {
  speakOf(data);
  byId("provenance").textContent = `${snapshotName(data)}, as of ${day(data.as_of)}`;
  byId("origin").textContent = `Snapshot ${data.period}, model ${data.model_version}, release ${data.release_id}.`;
  byId("demo").hidden = !data.manifest.is_demo;
  byId("logout").hidden = !data.has_session;
  for (const one of byId("nav").children) {
    if (one.pathname === location.pathname && one.pathname !== "/") one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  const warnings = [];
  if (data.refused) warnings.push(`A newer release was refused: ${data.refused}`);
  if (data.staleness.is_stale && !data.manifest.is_demo) {
    warnings.push(`Overdue: this is as of ${day(data.as_of)}, ${counted(data.staleness.age_days, "day")} ago.`);
  }
  byId("alert").hidden = !warnings.length;
  byId("alert").textContent = warnings.join(" ");
}

let turn = 0;

async function showAddress(place) {
  const mine = ++turn;
  const [name, show] = VIEWS[place.path] ?? VIEWS["/"];
  const main = byId("main");
  startView();
  try {
    const data = await releaseData();
    if (mine !== turn) return;
    showFrame(data);
    byId("nav").hidden = byId("search").hidden = false;
    // A list that is only ordered or restricted otherwise stays in its place, with the focus.
    const isSame = main.dataset.view === name && name === "customers";
    if (!isSame) main.replaceChildren(byId(`${name}-view`).content.cloneNode(true));
    main.dataset.view = name;
    const shown = show(data, place);
    if (!isSame && !place.isFirst && !place.isBack && !place.hash) startReading(main);
    const title = await shown;
    if (mine !== turn) return;
    document.title = `${title} · custseg`;
    // What had the focus may be gone: a page's link, a restriction.
    if (isSame && document.activeElement === document.body) byId("list-title").focus();
    if (place.hash) showSection(byId(place.hash.slice(1)));
  } catch (error) {
    if (mine === turn) showProblem(error);
  }
}

/** Put whoever uses a keyboard or a screen reader at the beginning of a new view. */
function startReading(main) {
  scrollTo(0, 0);
  main.querySelector("h1, h2")?.focus({ preventScroll: true });
}

function showSection(section) {
  section?.scrollIntoView();
  section?.querySelector("h2")?.focus({ preventScroll: true });
}

function showProblem(error) {
  const main = byId("main");
  delete main.dataset.view;
  byId("nav").hidden = byId("search").hidden = true;
  byId("provenance").textContent = "";
  const template = { key_required: "login-view", not_ready: "empty-view" }[error.code] ?? "problem-view";
  main.replaceChildren(byId(template).content.cloneNode(true));
  byId("login-form")?.addEventListener("submit", logIn);
  if (byId("login-error") && new URLSearchParams(location.search).get("login") === "used") {
    byId("login-error").textContent = "That link was used before, or is older than ten minutes. Log in with the key, or start again for a new link.";
  }
  const refused = error.details?.refused;
  const told = error.code === "not_ready" ? refused && `A release was refused: ${refused.reason}` : error.message;
  if (told) byId("problem")?.append(make("p", { role: "alert", text: told }));
  if (error.code === "not_ready") setTimeout(() => location.reload(), LOOK_AGAIN_MILLISECONDS);
  document.title = "custseg";
}

async function logIn(event) {
  event.preventDefault();
  const response = await fetch("/login", { method: "POST", body: new URLSearchParams(new FormData(event.target)) });
  if (response.ok) { location.reload(); return; }
  byId("login-error").textContent = (await response.json()).error.message;
}

/** The one customer whose id contains a text, or whose id it is; else the list of those whose id contains it. */
async function addressOf(text) {
  if (text.length > LONGEST_PART) return customerAddress(text);
  const { n_customers: n, n_held_out: held, customers } = await get(address("/v1/customers", { contains: text, limit: 1 }));
  // Who is held out of a campaign is in no list, and can be the one that is meant.
  if (n === 1 && !held) return customerAddress(customers[0].customer_id);
  const isId = n + held === 0 || await get(`/v1/customers/${encodeURIComponent(text)}/history`).then(() => true, () => false);
  return isId ? customerAddress(text) : listAddress({ contains: text });
}

async function find(event) {
  event.preventDefault();
  const text = byId("search-text").value.trim();
  if (!text) return;
  try {
    go(await addressOf(text));
  } catch (error) {
    if (!isGivenUp(error)) go(listAddress({ contains: text }));
  }
}

byId("search").addEventListener("submit", find);
startNavigation(showAddress);
