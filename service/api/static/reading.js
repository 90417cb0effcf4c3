// What an answer of the service means.

const SURE = 0.9; // a less probable reading is a guess, with a second one beside it
// A digit below this probability is probably none, unless the two likeliest labels together reach
// SURE. `service/api/confidence.py` has the same rule.
const LIKELY = 0.5;

// Returns {kind, first, second, parts}: the kind is "sure", "unsure" or "none" (not a digit). The
// readings are {text, ratio}; "?" stands for a part of a number that is probably not a digit.
export function read({ probabilities }) {
  const parts = probabilities.map(readOne);
  const texts = parts.map(({ label, kind }) => (kind === "none" ? "?" : String(label)));
  const product = (ratios) => ratios.reduce((a, b) => a * b, 1);
  const ratio = product(parts.map((part) => part.ratio));
  const first = { text: texts.join(""), ratio };
  if (parts.every(({ kind }) => kind === "none")) return { kind: "none", first, parts };
  if (parts.every(({ kind }) => kind === "sure")) return { kind: "sure", first, parts };
  const weakest = parts.reduce((a, b) => (b.ratio < a.ratio ? b : a));
  texts[parts.indexOf(weakest)] = String(weakest.other);
  const second = { text: texts.join(""), ratio: (ratio / weakest.ratio) * weakest.otherRatio };
  return { kind: "unsure", first, second, parts };
}

function readOne(probabilities) {
  const order = probabilities.map((_, label) => label).sort((a, b) => probabilities[b] - probabilities[a]);
  const [label, other] = order;
  const [ratio, otherRatio] = [probabilities[label], probabilities[other]];
  const isDigit = ratio >= LIKELY || ratio + otherRatio >= SURE;
  const kind = ratio >= SURE ? "sure" : isDigit ? "unsure" : "none";
  return { label, other, ratio, otherRatio, kind };
}
