// Elements of the page. What the shop or the service says is put in as text, never as markup.

const SVG = new Set(["svg", "line", "path", "circle", "rect", "text", "title", "g"]);

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; "text" is its text, "tip" its tooltip on hover and focus. */
export function make(name, attributes = {}, ...children) {
  const element = SVG.has(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value;
    else if (key === "tip") addTip(element, value);
    else if (key === "style") Object.assign(element.style, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const quiet = (text) => make("span", { class: "quiet", text });

export const link = (address, text, attributes = {}) => make("a", { href: address, text, ...attributes });

/** A value that is missing: a dash, and why in its title. */
export const missing = (why) => make("span", { class: "missing", role: "img", title: why, "aria-label": why, text: "–" });

export const badge = (kind, text) => make("span", { class: `badge ${kind}`, text });

function addTip(element, text) {
  const tooltip = byId("tooltip");
  const show = () => {
    tooltip.textContent = text;
    tooltip.hidden = false;
    const at = element.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left + at.width / 2 - tooltip.offsetWidth / 2), innerWidth - tooltip.offsetWidth - 8);
    const above = at.top - tooltip.offsetHeight - 8;
    tooltip.style.left = `${left}px`;
    tooltip.style.top = `${above > 0 ? above : at.bottom + 8}px`;
  };
  const hide = () => { tooltip.hidden = true; };
  if (element.tagName !== "A") {
    element.setAttribute("tabindex", "0");
    if (!element.hasAttribute("role")) element.setAttribute("role", "img");
  }
  element.setAttribute("aria-label", text.replaceAll("\n", ", "));
  element.addEventListener("pointerenter", show);
  element.addEventListener("pointerleave", hide);
  element.addEventListener("focus", show);
  element.addEventListener("blur", hide);
}

addEventListener("keydown", (event) => { if (event.key === "Escape") byId("tooltip").hidden = true; });

/** A table that scrolls sideways where it has no room, and says so. */
export function scrolling(label, table) {
  const region = make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, table);
  const hint = make("p", { class: "hint", hidden: true, "aria-hidden": "true", text: "More to the right: scroll sideways →" });
  const measure = () => { hint.hidden = region.scrollWidth - region.clientWidth - region.scrollLeft < 4; };
  new ResizeObserver(measure).observe(region);
  region.addEventListener("scroll", measure, { passive: true });
  return make("div", {}, hint, region);
}

/**
 * A table of texts or elements; the first cell of a row is its heading.
 *
 * kind: "cards", where each row becomes a card on a phone, or "figures", where all but the first two columns are numbers.
 */
export function wordTable(heads, rows, kind) {
  const cell = (content, at) => {
    const shown = content instanceof Node ? content : document.createTextNode(content ?? "–");
    const isText = kind === "cards" && at === heads.length - 1;
    const attributes = { "data-title": heads[at], class: isText ? "text" : null };
    return at ? make("td", { role: "cell", ...attributes }, shown) : make("th", { scope: "row", role: "rowheader", ...attributes }, shown);
  };
  const row = (cells) => make("tr", { role: "row" }, ...cells);
  // A card is no table to a browser, so the parts of one are named.
  return make("table", { class: `words ${kind}`, role: "table" },
    make("thead", { role: "rowgroup" }, row(heads.map((text) => make("th", { scope: "col", role: "columnheader", text })))),
    make("tbody", { role: "rowgroup" }, ...rows.map((cells) => row(cells.map(cell)))));
}

/** A name with its value, a text or an element, for a list of facts. */
export const fact = (name, value) => make("div", {}, make("dt", { text: name }), make("dd", {}, value));
