// What a calibration card says about a score, as the service decides.

export const WORDS = { true: "anomalous", false: "normal", null: "undecided" };
export const SHAPES = { anomalous: "▲", normal: "●", undecided: "◆" };

export function decide(card, row) {
  if (!card.decided_by || row.score === null) return "undecided";
  if (card.decided_by === "threshold") return WORDS[row.score > card.image];
  if (row.p_value === null) return "undecided";
  const low = row.p_value <= card.level;
  if (card.decided_by !== "estimate") return WORDS[low];
  if (card.image === null) return "undecided";
  return WORDS[low && row.score > card.image];
}

export function disagrees(word, verdict) {
  return (verdict === "good" && word === "anomalous") || (verdict === "defect" && word === "normal");
}

export const FILTERS = {
  all: () => true,
  anomalous: (word) => word === "anomalous",
  normal: (word) => word === "normal",
  unconfirmed: (word, verdict) => !verdict,
  disagree: (word, verdict) => disagrees(word, verdict),
};

export function percent(rate) {
  return `${Number((100 * rate).toPrecision(2))} %`;
}
