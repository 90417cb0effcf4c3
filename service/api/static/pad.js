// Drawing and erasing with a mouse, a pen or a finger, and what the pad shows.

import { add, current, drop, isBlank } from "./history.js";
import { SIDE, dense, erase, trace } from "./strokes.js";

const NIB = 10; // units: the stroke width on the pad
const RUBBER = 12; // units: the radius of the eraser
const RESTING = 6; // units: a touch that has moved less may be a palm
const PALM = 60; // CSS pixels: a wider touch is a palm
const AFTER_PEN = 700; // milliseconds after a pen in which a touch is the hand that holds it

const ink = document.getElementById("ink");
const image = document.getElementById("picture");
const boxes = document.getElementById("boxes");
const eraser = document.getElementById("eraser");

let changed; // the function to call after every change
let gesture = null; // {id, isTouch, start, last, stroke, hasErased} of the pointer that draws or erases
let lastPen = -Infinity; // when a pen last touched the pad

export const isDrawing = () => gesture !== null;

export function start(onChange) {
  changed = onChange;
  ink.addEventListener("pointerdown", begin);
  ink.addEventListener("pointermove", move);
  for (const end of ["pointerup", "pointercancel"]) ink.addEventListener(end, finish);
  // Otherwise, browsers take a tap right after a stroke for a double tap, which zooms.
  ink.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  ink.addEventListener("touchend", (event) => event.preventDefault(), { passive: false });
  ink.addEventListener("contextmenu", (event) => event.preventDefault());
  for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"])
    matchMedia(query).addEventListener("change", paint); // the color of the ink has changed
  eraser.addEventListener("click", () => {
    eraser.setAttribute("aria-pressed", String(!isErasing()));
  });
}

const isErasing = () => eraser.getAttribute("aria-pressed") === "true";

function point(event) {
  const { left, top, width, height } = ink.getBoundingClientRect();
  const inside = (length) => Math.min(Math.max(length, 0), SIDE); // what is sent is in sight
  return [inside(((event.clientX - left) * SIDE) / width), inside(((event.clientY - top) * SIDE) / height)];
}

function begin(event) {
  const isEraser = event.button === 5; // the other end of a pen
  if ((event.button !== 0 && !isEraser) || !mayDraw(event)) return;
  const erases = isEraser || isErasing();
  if (erases && !current().strokes.length) return; // a picture cannot be erased
  ink.setPointerCapture?.(event.pointerId);
  const start = point(event);
  gesture = { id: event.pointerId, isTouch: event.pointerType === "touch", start, last: start };
  if (erases) return rub([start]);
  gesture.stroke = [start];
  add({ strokes: [...current().strokes, gesture.stroke] });
  changed({ isDrawing: true });
}

// Erases along some points. One movement of the eraser is one state.
function rub(points) {
  const { strokes } = current();
  const rest = dense([gesture.last, ...points]).reduce((left, each) => erase(left, each, RUBBER), strokes);
  gesture.last = points.at(-1);
  if (rest === strokes) return;
  if (gesture.hasErased) current().strokes = rest;
  else add({ strokes: rest });
  gesture.hasErased = true;
  if (!rest.length) eraser.setAttribute("aria-pressed", "false"); // the next stroke draws
  changed({ isDrawing: true });
}

// Returns whether a pointer may begin a stroke. A pen comes before a touch, and a finger before a
// palm, which rests or is wide.
function mayDraw({ pointerType, width, height, timeStamp }) {
  const isTouch = pointerType === "touch";
  if (pointerType === "pen") lastPen = timeStamp;
  if (isTouch && (timeStamp - lastPen < AFTER_PEN || Math.max(width, height) > PALM)) return false;
  if (!gesture) return true;
  if (!gesture.isTouch || !isResting()) return pointerType === "pen" && gesture.isTouch && giveUp();
  return giveUp();
}

function isResting() {
  const { start: [x, y], stroke = [] } = gesture;
  return stroke.every(([x2, y2]) => Math.hypot(x - x2, y - y2) < RESTING);
}

// Removes the mark of a palm.
function giveUp() {
  if (gesture.stroke) drop();
  gesture = null;
  return true;
}

function move(event) {
  if (event.pointerId !== gesture?.id) return;
  if (event.pointerType === "pen") lastPen = event.timeStamp;
  const events = event.getCoalescedEvents?.() ?? [];
  const points = (events.length ? events : [event]).map(point);
  if (!gesture.stroke) return rub(points);
  gesture.stroke.push(...points);
  changed({ isDrawing: true });
}

function finish(event) {
  if (event.pointerId !== gesture?.id) return;
  const hasChanged = gesture.stroke || gesture.hasErased;
  gesture = null;
  if (hasChanged) changed();
}

// Ends a stroke that is still being drawn when the pad changes in another way.
export function interrupt() {
  gesture = null;
}

// Hides or shows an element. The pad takes over the focus of what disappears.
export function hide(element, isHidden) {
  if (isHidden && element.contains(document.activeElement)) ink.focus({ preventScroll: true });
  element.hidden = isHidden;
}

export function paint() {
  const { strokes, picture } = current();
  const context = ink.getContext("2d");
  const scale = ink.width / SIDE;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, ink.width, ink.height);
  context.scale(scale, scale);
  context.strokeStyle = getComputedStyle(ink).color;
  trace(context, strokes, NIB);
  image.hidden = !picture;
  if (picture && image.getAttribute("src") !== picture.url) image.src = picture.url;
  image.classList.toggle("sharp", Boolean(picture?.isSample));
  image.alt = picture?.name ?? "";
  document.getElementById("invitation").classList.toggle("away", !isBlank());
}

// Draws a box around each digit of a number. `labels` are what to write beside the boxes.
export function showBoxes(result, labels) {
  boxes.replaceChildren();
  if (!result?.boxes) return;
  const scale = SIDE / Math.max(image.naturalWidth, image.naturalHeight);
  const left = (SIDE - scale * image.naturalWidth) / 2;
  const top = (SIDE - scale * image.naturalHeight) / 2;
  const onPicture = ([x, y, w, h]) => [left + x * scale, top + y * scale, w * scale, h * scale];
  for (const [number, box] of result.boxes.entries()) {
    const [x, y, width, height] = (result.toPad ?? onPicture)(box);
    const rect = svg("rect", { x: x - 3, y: y - 3, width: width + 6, height: height + 6, rx: 3 });
    const text = svg("text", { x: x + width / 2, y: y > 20 ? y - 7 : y + height + 16 });
    text.textContent = labels[number];
    boxes.append(rect, text);
  }
}

function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
