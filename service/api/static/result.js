// The answer: in large, in a sentence, in probabilities, and the images that the network received.

import { write } from "./handwriting.js";
import { hide, showBoxes } from "./pad.js";
import { read } from "./reading.js";
import { digits, percent, words } from "./words.js";

const MARKS = { blank: "0123456789", waiting: "…", recognizing: "…", slow: "…", paused: "…" }; // "!" otherwise
const WORTH_NAMING = 0.1; // a less probable second reading would only confuse
const byId = (id) => document.getElementById(id);
const answer = byId("answer");

// Shows what `requests.js` reports. `isFinal` tells whether a screen reader should read it.
export function show({ kind, result, keep, part }, isFinal) {
  const isPending = ["waiting", "recognizing", "slow", "progress"].includes(kind);
  answer.setAttribute("aria-busy", String(isPending));
  hide(byId("again"), isPending || kind === "blank" || kind === "result");
  byId("progress").hidden = kind !== "progress" || part === 1;
  if (kind === "progress") return (byId("progress").value = part);
  if (result) showResult(result);
  else if (!keep) clear(kind, isPending);
  if (isPending && keep && kind !== "waiting") byId("sentence").textContent = words[kind];
  if (kind === "blank" || (kind === "waiting" && !keep)) byId("status").textContent = "";
  else if (isFinal) byId("status").textContent = byId("sentence").textContent;
}

function clear(kind, isPending) {
  document.body.dataset.state = isPending ? "pending" : ["blank", "paused"].includes(kind) ? "blank" : "error";
  byId("sentence").textContent = kind === "waiting" ? "" : words[kind];
  mark(MARKS[kind] ?? "!");
  showTable(null);
  showImages(null);
  showBoxes(null);
}

function showResult(result) {
  const reading = read(result);
  document.body.dataset.state = reading.kind === "sure" ? "sure" : "unsure";
  byId("sentence").textContent = sentence(reading);
  mark(reading.first.text);
  showTable(result, reading);
  showImages(result);
  showBoxes(result, [...reading.first.text].map(digits));
}

function sentence({ kind, first, second, parts }) {
  if (kind === "none") return parts.length > 1 ? words.notNumber : words.notDigit;
  const texts = [first, second].map((each) => each && [each.text, digits(each.text), percent(each.ratio)]);
  if (kind !== "sure" && first.text.includes("?")) return words.partly(digits(first.text));
  if (!second || second.ratio < WORTH_NAMING) return words.looksLike(...texts[0]);
  return words.couldBe(texts[0], texts[1]);
}

function mark(text) {
  const mark = byId("digit");
  if (mark.dataset.written === text) return; // do not write it again
  mark.dataset.written = text;
  mark.replaceChildren(...write(text));
}

// For one digit, a row of the table is a label with a bar. For a number, it is one of its digits.
function showTable(result, reading) {
  const table = byId("table");
  const isNumber = result?.probabilities.length > 1;
  table.classList.toggle("number", isNumber);
  const head = byId("columns");
  head.hidden = !isNumber;
  const body = byId("rows");
  if (!isNumber) {
    if (!body.querySelector(".bar")) body.replaceChildren(...Array.from({ length: 10 }, barRow));
    for (const [label, row] of [...body.rows].entries()) showBar(row, label, result, reading);
    return;
  }
  if (!head.cells.length)
    head.append(cell("td"), ...Array.from({ length: 10 }, (_, label) => cell("th", digits(label))));
  body.replaceChildren(...reading.parts.map((part, number) => numberRow(part, result.probabilities[number])));
}

function barRow(_, label) {
  const row = document.createElement("tr");
  const bar = cell("td");
  bar.append(document.createElement("div"));
  bar.firstChild.className = "bar";
  bar.firstChild.append(document.createElement("div"));
  row.append(cell("th", digits(label), "row"), bar, cell("td"));
  return row;
}

function showBar(row, label, result, reading) {
  const ratio = result?.probabilities[0][label];
  row.querySelector(".bar div").style.inlineSize = `${100 * (ratio ?? 0)}%`;
  row.cells[2].textContent = result ? percent(ratio, 1) : "–";
  row.classList.toggle("best", reading?.parts[0].label === label);
}

function numberRow({ label, kind }, probabilities) {
  const row = document.createElement("tr");
  row.append(cell("th", kind === "none" ? "?" : digits(label), "row"));
  for (const [each, ratio] of probabilities.entries()) {
    const shaded = cell("td", ratio < 0.01 ? "" : percent(ratio));
    shaded.style.setProperty("--ratio", `${Math.round(100 * ratio)}%`);
    shaded.classList.toggle("best", each === label);
    row.append(shaded);
  }
  return row;
}

function cell(name, text = "", scope = name === "th" ? "col" : "") {
  const element = document.createElement(name);
  element.textContent = text;
  if (scope) element.scope = scope;
  return element;
}

function showImages(result) {
  byId("images").replaceChildren(...(result?.preprocessed ?? [null]).map(toCanvas));
}

function toCanvas(grays) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 28;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words.image);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(28, 28);
  for (const [index, gray] of (grays ?? []).flat().entries())
    pixels.data.set([gray, gray, gray, 255], 4 * index);
  context.putImageData(pixels, 0, 0);
  const frame = document.createElement("span"); // for what lies over the image
  frame.append(canvas);
  return frame;
}
