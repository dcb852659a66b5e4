// One colour for each segment, the same in every view and in the pictures of the pipeline.

import { make } from "./elements.js";

/** A dot in a segment's colour. */
export const dot = (segmentId) => make("span", { class: "dot", style: { background: colourOf(segmentId) } });

/** The CSS colour of a segment: by the number in its id, rule segments in greys. */
export function colourOf(segmentId) {
  const position = Math.max(0, (parseInt(segmentId.replace(/^\D+/, ""), 10) || 1) - 1);
  return segmentId.startsWith("R") ? `var(--r${position % 2})` : `var(--s${position % 8})`;
}
