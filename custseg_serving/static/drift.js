// Whether the customers changed since the model was trained: the verdict, and every score against its threshold.

import { lineChart } from "./charts.js";
import { badge, byId, make } from "./elements.js";
import { counted, featureName, period, precise, SCORES, sentence, snapshotName, withPeriods } from "./words.js";

export const VERDICTS = {
  stable: ["good", "Stable", "The customers are as they were when the model was trained."],
  watch: ["warn", "Watch", "Something changed, but not by much. What is usual here is not known yet."],
  breach: ["bad", "Changed", 
    "The customers are no longer those that the model was trained on. Look at what changed before you rely on it."],
  "not enough data": ["warn", "Not enough data", "Nothing can be said about a change, which does not mean that there is none."],
};

const CORRELATION = /^(\S+) × (\S+)$/;

/** What a score is about, in words. */
function subjectName(subject) {
  const pair = CORRELATION.exec(subject);
  if (pair) return `${featureName(pair[1])} together with ${featureName(pair[2]).toLowerCase()}`;
  return subject === "centroid_distance" ? "Distance to the centre of the segment" : featureName(subject);
}

/** The sentence of a report's reasons about a subject, without the figures, which stand beside it. */
function sentenceOf(reasons, subject) {
  const start = subject === "centroid_distance" ? "distance to the own centroid: " : `${subject}: `;
  const found = reasons.find((text) => [start, `segment ${start}`, `correlation ${start}`].some((one) => text.startsWith(one)));
  if (!found) return null;
  const withFigures = found.slice(found.indexOf(start) + start.length);
  const what = withFigures.replace(/ \([^()]*\)$/, "").replace(/(\d)%/g, "$1 %").replace(/-(?=\d)/g, "−");
  return `${CORRELATION.test(subject) ? "correlation " : ""}${what}`;
}

const excess = (one) => (one.score === null || !one.threshold ? 0 : one.score / one.threshold);

/** How much a score says, in words and as a kind of badge. */
function severity(one) {
  if (one.score === null) return ["", "not measured"];
  if (!one.is_alert) return ["good", "within what is expected"];
  // Releases of earlier versions lack these limits, and a shop's own movement takes snapshots to know.
  if (one.score >= (one.large_effect ?? Infinity)) return ["bad", "large by any measure"];
  if (one.score >= (one.own_threshold ?? Infinity)) return ["bad", "more than is usual here"];
  return ["warn", "more than chance"];
}

const scoreName = (name) => SCORES[name] ?? name.replaceAll("_", " ");

/** A score on a track that ends where a change is large by any measure; the tick is where alerts begin. */
function scoreBar(one) {
  const end = one.large_effect ?? null;
  const place = (value) => `${100 * Math.min(Math.max(value, 0) / end, 1)}%`;
  const track = end === null || one.score === null ? null : make("div", { class: "track", "aria-hidden": "true" },
    make("div", { class: `fill ${severity(one)[0]}`, style: { width: place(one.score) } }),
    one.threshold === null ? null : make("div", { class: "tick", style: { left: place(one.threshold) } }));
  const figures = one.score === null ? "not measured" : `${precise(one.score)}, alerts from ${precise(one.threshold)}`;
  return make("div", { class: "score" }, make("span", { class: "bar-name", text: scoreName(one.score_name) }), track,
    make("span", { class: "bar-figure", text: figures }));
}

function subjectItem([subject, rows], reasons) {
  const [kind, words] = severity(rows[0]);
  const sentence = sentenceOf(reasons, subject);
  return make("li", { class: "drift-subject" }, make("h3", {}, make("span", { text: subjectName(subject) }), badge(kind, words)),
    sentence ? make("p", { text: sentence }) : null, ...rows.map(scoreBar));
}

/** Scores by what they are about, the furthest over its threshold first. */
function ranked(rows) {
  const subjects = new Map();
  for (const one of [...rows].sort((a, b) => Number(b.is_alert) - Number(a.is_alert) || excess(b) - excess(a))) {
    subjects.set(one.subject, [...(subjects.get(one.subject) ?? []), one]);
  }
  return [...subjects];
}

/** The rows of the newest report. */
export const newestReport = (reports) => {
  const newest = reports.map((one) => one.period).sort().at(-1);
  return reports.filter((one) => one.period === newest);
};

export function showDrift(reports) {
  if (!reports.length) { byId("drift").replaceChildren(make("p", { text: "No drift has been measured yet." })); return; }
  const now = newestReport(reports);
  const { verdict, reasons, reference_period: reference } = now[0];
  const [kind, word, meaning] = VERDICTS[verdict] ?? ["", verdict, ""];
  const subjects = ranked(now);
  const alerting = subjects.filter(([, rows]) => rows.some((one) => one.is_alert));
  const calm = subjects.filter((one) => !alerting.includes(one));
  // The first reason is the verdict's, the last one says what could have been seen; those between are of the subjects.
  byId("drift").replaceChildren(
    make("p", { class: "lead" }, badge(kind, word),
      ` ${snapshotName(now[0])} against ${period(reference)}, when the model was trained. ${meaning}`),
    make("p", { class: "quiet", text: sentence([reasons[0], ...reasons.slice(1).slice(-1)]) }),
    make("p", { class: "quiet", text: "A bar ends where a change is large by any measure; the tick is where alerts begin." }),
    make("ol", { class: "plain" }, ...alerting.map((one) => subjectItem(one, reasons))),
    calm.length ? make("details", {}, make("summary", { text: `${counted(calm.length, "more is", "more are")} within what is expected` }),
      make("ol", { class: "plain" }, ...calm.map((one) => subjectItem(one, reasons)))) : null,
    showVerdicts(reports), overTime(reports));
}

function showVerdicts(reports) {
  const periods = [...new Set(reports.map((one) => one.period))].sort();
  return make("ul", { class: "verdicts", id: "verdicts", "aria-label": "Verdicts of the snapshots so far" }, ...periods.map((key) => {
    const report = reports.find((one) => one.period === key);
    const [kind, word] = VERDICTS[report.verdict] ?? ["", report.verdict];
    const text = `${snapshotName(report)}: ${word}`, tip = `${text}\n${withPeriods(report.reasons.join("\n"))}`;
    return make("li", {}, make("span", { class: `badge ${kind}`, text, tip }));
  }));
}

function overTime(reports) {
  const periods = [...new Set(reports.map((one) => one.period))].sort();
  const charts = new Map();
  for (const one of reports) {
    const chart = `${one.score_name} ${one.subject}`;
    charts.set(chart, [...(charts.get(chart) ?? []), one]);
  }
  const details = make("details", { id: "drift-over-time" }, make("summary", { text: `Every score over ${counted(periods.length, "snapshot")}` }));
  const draw = () => details.append(
    make("p", { class: "quiet", text: "Line: the score. Dashed: where alerts begin. Filled red points alert." }),
    make("div", { class: "grid" }, ...[...charts.values()].map((rows) => {
      const [{ score_name: score, subject }] = rows;
      const points = periods.map((key) => {
        const one = rows.find((row) => row.period === key);
        const tip = one && `${period(key)}: ${precise(one.score)}\nthreshold ${precise(one.threshold)}${one.is_alert ? "\nalert" : ""}`;
        return { label: period(key), value: one?.score ?? null, threshold: one?.threshold ?? null, isAlert: one?.is_alert, tip };
      });
      return make("figure", {}, make("figcaption", { text: subjectName(subject) }, make("small", { text: scoreName(score) })),
        lineChart(points, { description: `${scoreName(score)} of ${subjectName(subject)} over ${periods.length} snapshots` }));
    })));
  details.addEventListener("toggle", draw, { once: true });
  return details;
}
