// Where the network looked: the places whose cover lowers the probability of the label, in color.

import { current } from "./history.js";
import { recognize } from "./service.js";

const COLOR = [255, 92, 60];
const STRONGEST = 210; // of 255: the opacity of the place that matters most
// A digit that stays recognizable however it is covered has small numbers everywhere, so the color is
// relative to the largest number, but not to less than this.
const LEAST = 0.02;
const button = document.getElementById("why");
const images = document.getElementById("images");

const is = (state) => button.getAttribute(state) === "true";

export function start(fail) {
  button.addEventListener("click", async () => {
    if (is("aria-disabled")) return;
    if (is("aria-pressed")) return hide();
    button.setAttribute("aria-pressed", "true");
    const state = current();
    try {
      const result = await ask(state);
      if (state === current() && is("aria-pressed")) draw(result.why);
    } catch {
      if (state !== current()) return;
      hide();
      fail();
    }
  });
}

// Offers the explanation of a result, or none.
export function offer(isAnswered) {
  button.setAttribute("aria-disabled", String(!isAnswered));
  hide();
}

async function ask({ result }) {
  if (!result.why) {
    const options = { signal: AbortSignal.timeout(10_000), extra: { why: true } };
    result.why = (await recognize(result.picture, options)).why;
  }
  return result;
}

function hide() {
  button.setAttribute("aria-pressed", "false");
  for (const overlay of images.querySelectorAll(".why")) overlay.remove();
}

function draw(maps) {
  for (const overlay of images.querySelectorAll(".why")) overlay.remove();
  for (const [number, map] of maps.entries()) {
    const canvas = document.createElement("canvas");
    canvas.className = "why";
    canvas.width = canvas.height = 28;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(28, 28);
    const values = map.flat();
    const largest = Math.max(...values, LEAST);
    for (const [index, value] of values.entries())
      pixels.data.set([...COLOR, (STRONGEST * value) / largest], 4 * index);
    context.putImageData(pixels, 0, 0);
    images.children[number].append(canvas);
  }
}
