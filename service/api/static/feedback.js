// "Not right?": one press on a digit sends the picture that was recognized, and the right digit.

import { current } from "./history.js";
import { hide } from "./pad.js";
import { correct } from "./service.js";
import { askForToken } from "./token.js";
import { digits, words } from "./words.js";

const TIMEOUT = 10_000; // milliseconds
const section = document.getElementById("feedback");
const labels = document.getElementById("labels");
const kept = document.getElementById("kept");
const FAILURES = { 422: "notCorrected", 429: "tooManyCorrections", 507: "fullOfCorrections" };

// Adds the ten digits, if the service collects corrections.
export function start() {
  if (!("collects" in document.body.dataset)) return;
  for (let label = 0; label < 10; label += 1) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", value: label, textContent: digits(label) });
    button.setAttribute("aria-label", words.itIs(String(label), digits(label)));
    labels.append(button);
  }
  labels.addEventListener("click", ({ target }) => {
    if (target.matches("button:not([aria-disabled=true])")) press(current(), Number(target.value));
  });
}

// Offers to correct a result of one digit, unless the picture is a test image: on those, a model is
// only tested. While the next answer is awaited, the offer keeps its place.
export function offer(isAnswered, isPending) {
  const { picture, result } = current();
  const isOne = result?.probabilities.length === 1 && !result.picture.many && !picture?.isSample;
  enable(isAnswered);
  if (isPending) return;
  hide(section, !labels.children.length || !isAnswered || !isOne);
  say(result?.correction);
}

function enable(isPossible) {
  for (const button of labels.children) button.setAttribute("aria-disabled", String(!isPossible));
}

// Says which digit was kept, or why none was.
function say({ label, failure } = {}) {
  for (const button of labels.children)
    button.setAttribute("aria-pressed", String(Number(button.value) === label));
  kept.classList.toggle("failed", Boolean(failure));
  kept.textContent = failure ?? (label === undefined ? "" : words.kept(String(label), digits(label)));
}

async function press(state, label) {
  enable(false);
  const { result } = state;
  try {
    await correct(result, label, AbortSignal.timeout(TIMEOUT));
    result.correction = { label };
  } catch ({ kind, status }) {
    if (kind === "locked" && (await askForToken())) return press(state, label);
    const reason = kind === "locked" ? kind : kind === "gone" ? "goneCorrection" : FAILURES[status];
    result.correction = { ...result.correction, failure: words[reason ?? "failedCorrection"] };
  }
  if (state.result !== result || state !== current()) return;
  enable(true);
  say(result.correction);
}
