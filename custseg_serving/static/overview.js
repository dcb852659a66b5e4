// The first page: who to write to, whether it is still true, segments, moves, drift and models.

import { showWhetherTrue, showWhoToWriteTo } from "./actions.js";
import { showDrift } from "./drift.js";
import { showCard, showModels } from "./models.js";
import { showMoves } from "./moves.js";
import { showExpected, showHeatmap, showSegments, withStakes } from "./segments.js";
import { watchTraffic } from "./traffic.js";

const bySpend = (a, b) => (b.revenue_net ?? 0) - (a.revenue_net ?? 0);

/** Fill the overview: first what is known already, then what has to be asked for. */
export async function showOverview(data) {
  const segments = [...data.segments].sort(bySpend);
  showWhetherTrue(data);
  showExpected(segments, data.history);
  showHeatmap(segments);
  showMoves(data.migrations, segments, data);
  showDrift(data.drift);
  showModels(data.history);
  showCard(data.model_card);
  watchTraffic();
  await Promise.all([showWhoToWriteTo(), withStakes(segments).then((known) => showSegments(known, data.migrations))]);
  return "Customer segments";
}
