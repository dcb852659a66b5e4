// Charts, drawn as SVG or as bars.

import { make } from "./elements.js";
import { colourOf } from "./colours.js";
import { counted, money, share, snapshotName } from "./words.js";

/** A bar of a share, on a track that stands for 100 %. */
export function shareBar(label, value, figure, colour) {
  const width = `${100 * Math.min(Math.max(value ?? 0, 0), 1)}%`;
  return make("div", { class: "bar" }, make("span", { class: "bar-name", text: label }),
    make("div", { class: "track", "aria-hidden": "true" }, make("div", { class: "fill", style: { width, background: colour } })),
    make("span", { class: "bar-figure", text: `${share(value)} · ${figure}` }));
}

/** A line chart from nought; points are {label, value, threshold?, isAlert?, tip}, null values leave a gap. */
export function lineChart(points, { height = 90, description }) {
  const width = 240, left = 4, right = 4, top = 8, bottom = 14;
  const highest = Math.max(...points.flatMap((one) => [one.value ?? 0, one.threshold ?? 0]), 1e-9) * 1.1;
  const x = (index) => left + (points.length < 2 ? 0.5 : index / (points.length - 1)) * (width - left - right);
  const y = (value) => top + (1 - value / highest) * (height - top - bottom);
  const path = (key) => {
    let isBroken = true;
    return points.map((one, index) => {
      if (one[key] === null || one[key] === undefined) { isBroken = true; return ""; }
      const step = `${isBroken ? "M" : "L"}${x(index).toFixed(1)} ${y(one[key]).toFixed(1)}`;
      isBroken = false;
      return step;
    }).join("");
  };
  const marks = points.map((one, index) => (one.tip && one.value !== null
    ? make("circle", { class: one.isAlert ? "point alert" : "point", cx: x(index), cy: y(one.value), r: 3.4, tip: one.tip }) : null));
  return make("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": description },
    make("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    make("path", { class: "threshold", d: path("threshold") }), make("path", { class: "series", d: path("value") }), ...marks,
    make("text", { x: left, y: height - 3, text: points[0]?.label ?? "" }),
    make("text", { x: width - right, y: height - 3, "text-anchor": "end", text: points.at(-1)?.label ?? "" }));
}

/** A customer's spend at each snapshot, oldest first, each bar in the colour of the segment. */
export function historyChart(snapshots) {
  const width = 600, height = 110, shown = 100;
  const values = snapshots.map((one) => Math.max(one.monetary_net ?? 0, 0));
  const highest = Math.max(...values, 1e-9);
  const step = width / snapshots.length;
  const ends = snapshots.length > 1 ? [snapshots[0], snapshots.at(-1)] : snapshots;
  const bars = snapshots.map((one, at) => {
    const tall = Math.max((values[at] / highest) * shown, 2);
    const spend = one.monetary_net === null ? "no order in the observation window" : `spend ${money(one.monetary_net)}`;
    return make("rect", { x: at * step + step * 0.12, y: height - tall, width: step * 0.76, height: tall, rx: 2,
      class: one.is_open ? "so-far" : null, style: { fill: colourOf(one.segment_id) },
      tip: `${snapshotName(one)}: ${one.segment_name}\n${spend}` });
  });
  return make("figure", { class: "history-chart" },
    make("figcaption", { text: `Net spend at each snapshot, at most ${money(Math.max(...values))}` },
      make("small", { text: "The colour is the segment's." })),
    make("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `Net spend at ${counted(snapshots.length, "snapshot")}` },
      make("line", { class: "axis", x1: 0, x2: width, y1: height, y2: height }), ...bars),
    make("div", { class: "ends", "aria-hidden": "true" }, ...ends.map((one) => make("span", { text: snapshotName(one) }))));
}
