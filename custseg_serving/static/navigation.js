// Which view an address shows, and how to get from one to the other without loading the page again.

let show = null;

/** Show the view of the present address, now and whenever the address changes. */
export function startNavigation(showAddress) {
  show = showAddress;
  addEventListener("popstate", (event) => { if (shown !== pathOf(location)) arrive(event.state, { isBack: true }); });
  addEventListener("click", follow);
  return arrive(history.state, { isFirst: true });
}

/** Go to an address of this page. */
export function go(address, state = {}) {
  rememberPlace();
  history.pushState(state, "", address);
  return arrive(state, {});
}

/** Show another address in the place of the present one. */
export function goInstead(address, state = {}) {
  history.replaceState(state, "", address);
  return arrive(state, {});
}

let shown = null;
const pathOf = (place) => place.pathname + place.search;

async function arrive(state, how) {
  shown = pathOf(location);
  await show({ path: location.pathname, search: location.search, hash: location.hash, state, ...how });
  if (how.isBack) scrollTo(0, state?.scroll ?? 0);
}

function rememberPlace() { history.replaceState({ ...history.state, scroll: scrollY }, ""); }

function follow(event) {
  const anchor = event.target.closest?.("a[href]");
  const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
  if (!anchor || !isPlain || event.defaultPrevented || anchor.target || anchor.hasAttribute("download")) return;
  const to = new URL(anchor.href);
  const isOwn = to.origin === location.origin && ["/", "/customers", "/customer"].includes(to.pathname);
  const isWithin = pathOf(to) === pathOf(location) && to.hash;
  if (!isOwn || isWithin) return;
  event.preventDefault();
  go(anchor.href, anchor.dataset.state ? JSON.parse(anchor.dataset.state) : {});
}
