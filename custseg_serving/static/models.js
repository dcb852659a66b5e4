// Models that were tried, what was decided about them, and the card of the one that answers.

import { byId, make, wordTable } from "./elements.js";
import { counted, period, precise, sentence, share } from "./words.js";

export function showModels({ decisions, candidates }) {
  // Most snapshots train no challenger, and have nothing to tell.
  const decided = decisions.filter((one) => one.model_version !== null);
  const promotions = decided.map((one) => [period(one.period), one.decision, one.model_version, one.champion_before, sentence(one.reasons)]);
  const without = decisions.length - decided.length;
  const tried = candidates.map((one) => [counted(one.k, "segment"), precise(one.silhouette), precise(one.bootstrap_ari), precise(one.worst_jaccard),
    share(one.smallest_share), `${one.is_chosen ? "chosen: " : one.is_eligible ? "eligible: " : ""}${one.reason}`]);
  byId("models").replaceChildren(
    make("h3", { text: "Decisions" }),
    wordTable(["Snapshot", "Decision", "Challenger", "Champion before", "Why"], promotions, "cards"),
    without ? make("p", { class: "quiet", text: `At ${counted(without, "other snapshot")} no challenger was trained.` }) : "",
    make("h3", { text: "Numbers of segments tried for the champion" }),
    wordTable(["Tried", "Silhouette", "Bootstrap ARI", "Worst Jaccard", "Smallest", "Outcome"], tried, "cards"));
}

export function showCard(text) { byId("card").replaceChildren(...markdown(text)); }

/** Just enough Markdown for a model card: headings, paragraphs, lists and tables. */
function markdown(text) {
  const cells = (line) => line.replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  return text.trim().split(/\n{2,}|\n(?=#)|(?<=^#.*)\n/m).filter((block) => block.trim()).map((block) => {
    const lines = block.trim().split("\n");
    const heading = /^#+\s+(.*)/.exec(lines[0]);
    if (heading) return make("h3", { text: heading[1] });
    const start = lines.findIndex((line) => line.startsWith("|"));
    if (start >= 0) {
      const [head, , ...rows] = lines.slice(start).filter((line) => line.startsWith("|"));
      return make("div", {}, ...lines.slice(0, start).map((line) => make("p", { text: line })), wordTable(cells(head), rows.map(cells), "cards"));
    }
    if (lines.every((line) => /^[-*] /.test(line))) return make("ul", {}, ...lines.map((line) => make("li", { text: line.slice(2) })));
    return make("div", {}, ...lines.map((line) => make("p", { text: line })));
  });
}
