// The page keeps a history of states, and shows the result for the last one.
// A state is {strokes, picture}. It has strokes, which are lists of points [x, y], or a picture. The
// blank state has neither.

const SIDE = 280; // pixels: the side of the image that is sent, and the unit of the points
const PEN = 22; // pixels: the stroke width, which becomes as wide as MNIST's at 28 x 28 pixels
const SURE = 0.9; // the page presents a less probable result as a guess, with a second reading
// The page presents a result below this probability as probably not a digit, unless the two likeliest
// labels together reach SURE. `service/api/confidence.py` has the same rule.
const LIKELY = 0.5;
const TIMEOUT = 15_000; // milliseconds; a request that hangs would block all later ones

const byId = (id) => document.getElementById(id);
const pad = byId("pad");
const ink = byId("ink");
const image = byId("picture");
const samples = byId("samples");

const states = [{ strokes: [], picture: null }];
const current = () => states.at(-1);
const isBlank = ({ strokes, picture }) => !strokes.length && !picture;

function addState(state) {
  states.push(state);
  update();
}

function undo() {
  if (states.length === 1) return;
  stroke = null;
  states.pop();
  update();
}

function clear() {
  stroke = null;
  if (!isBlank(current())) addState({ strokes: [], picture: null });
}

function addFile(file) {
  stroke = null;
  const content = () => file;
  addState({ strokes: [], picture: { name: file.name, url: URL.createObjectURL(file), content } });
}

function addSample(name) {
  const url = `static/samples/${name}`;
  const content = async () => (await request(url)).blob();
  addState({ strokes: [], picture: { name, url, content, sample: true } });
}

// Requests: the page sends one at a time.

let isRequesting = false;
let isStale = false; // the pad has changed since the last request

async function update() {
  paint();
  isStale = true;
  if (isRequesting) return;
  isRequesting = true;
  while (isStale) {
    isStale = false;
    const state = current();
    const result = isBlank(state) ? null : await recognize(state);
    // Show an outdated result only while the visitor is drawing the same state.
    if (state === current() && !(isStale && !stroke)) show(result);
  }
  isRequesting = false;
}

async function recognize({ strokes, picture }) {
  try {
    const form = new FormData();
    if (picture) form.append("image", await picture.content(), picture.name);
    else form.append("image", await toPng(strokes), "drawing.png");
    const url = "recognize?probabilities=true&preprocessed=true";
    const response = await request(url, { method: "POST", body: form });
    const answer = await response.json();
    if (!response.ok) return { error: answer.error, canRetry: response.status >= 500 };
    return {
      label: answer.labels[0],
      probabilities: answer.probabilities[0],
      preprocessed: answer.preprocessed[0],
    };
  } catch {
    return { error: "The service is not responding.", canRetry: true };
  }
}

async function request(url, options) {
  const response = await fetch(url, { ...options, signal: AbortSignal.timeout(TIMEOUT) });
  const version = response.headers.get("X-Model-Version");
  if (version && version !== byId("version").textContent) showModel();
  return response;
}

function toPng(strokes) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, SIDE, SIDE);
  context.strokeStyle = "white"; // on black, as in MNIST
  trace(context, strokes);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// Display.

function paint() {
  const { strokes, picture } = current();
  const context = ink.getContext("2d");
  context.reset();
  context.scale(ink.width / SIDE, ink.height / SIDE);
  trace(context, strokes); // black; the style sheet inverts it in dark mode
  image.hidden = !picture;
  if (picture && image.getAttribute("src") !== picture.url) image.src = picture.url;
  image.classList.toggle("sharp", Boolean(picture?.sample));
  image.alt = picture ? `The picture ${picture.name}` : "";
  const sample = picture?.sample && picture.name;
  for (const radio of samples.querySelectorAll("input")) radio.checked = radio.value === sample;
  byId("undo").disabled = states.length === 1;
  byId("clear").disabled = isBlank(current());
  if (isBlank(current())) show(null);
}

function trace(context, strokes) {
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  context.fillStyle = context.strokeStyle;
  for (const points of strokes) {
    const [[x, y]] = points;
    context.beginPath();
    context.arc(x, y, PEN / 2, 0, 2 * Math.PI);
    context.fill(); // a canvas does not draw a line of length zero, such as a dot
    context.beginPath();
    context.moveTo(x, y);
    // Curves through the midpoints look smooth. A fast pointer reports only few points.
    for (const [index, [x, y]] of points.entries()) {
      const [nextX, nextY] = points[index + 1] ?? [x, y];
      context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    }
    context.stroke();
  }
}

const rows = Array.from({ length: 10 }, (_, digit) => {
  const row = byId("rows").insertRow();
  const head = row.appendChild(document.createElement("th"));
  head.scope = "row";
  head.textContent = digit;
  const bar = row.insertCell().appendChild(document.createElement("div"));
  bar.className = "bar";
  return { row, fill: bar.appendChild(document.createElement("div")), text: row.insertCell() };
});

function show(result) {
  const { label, probabilities, preprocessed, error, canRetry } = result ?? {};
  const text = error ?? (probabilities ? sentence(label, probabilities) : "");
  const unsure = Boolean(probabilities) && probabilities[label] < SURE;
  const digit = probabilities && !isDigit(label, probabilities) ? "?" : label;
  byId("digit").textContent = digit ?? (error ? "!" : "?");
  byId("sentence").textContent = text || "No drawing yet";
  byId("again").hidden = !canRetry;
  document.body.dataset.state = error ? "error" : probabilities ? (unsure ? "unsure" : "sure") : "blank";
  rows.forEach((each, digit) => {
    each.fill.style.width = `${100 * (probabilities?.[digit] ?? 0)}%`;
    each.text.textContent = probabilities ? percent(probabilities[digit], 1) : "–";
    each.row.classList.toggle("best", digit === label);
  });
  showPreprocessed(preprocessed);
  // A screen reader reads the status. During a stroke, updates would arrive faster than it reads.
  if (!stroke && !isStale) byId("status").textContent = text;
}

function sentence(label, probabilities) {
  const sure = (digit) => `${percent(probabilities[digit], 0)} sure`;
  if (probabilities[label] >= SURE) return `This is ${article(label)}, ${sure(label)}`;
  const first = `perhaps ${article(label)} (${sure(label)})`;
  if (!isDigit(label, probabilities)) return `Probably not a digit, or ${first}`;
  const second = secondOf(label, probabilities);
  return `Not sure: ${first}, or ${article(second)} (${sure(second)})`;
}

const isDigit = (label, probabilities) =>
  probabilities[label] >= LIKELY ||
  probabilities[label] + probabilities[secondOf(label, probabilities)] >= SURE;

function secondOf(label, probabilities) {
  const others = probabilities.map((probability, digit) => (digit === label ? -1 : probability));
  return others.indexOf(Math.max(...others));
}

const article = (digit) => `${digit === 8 ? "an" : "a"} ${digit}`;

// Rounds down, because a model is never 100 % sure.
function percent(ratio, decimals) {
  const scale = 10 ** decimals;
  const floor = Math.floor(Math.min(ratio, 0.9999) * 100 * scale) / scale;
  return `${floor.toFixed(decimals)}\u00a0%`; // no-break space
}

function showPreprocessed(grays) {
  const context = byId("preprocessed").getContext("2d");
  context.clearRect(0, 0, 28, 28);
  if (!grays) return;
  const pixels = context.createImageData(28, 28);
  grays.flat().forEach((gray, index) => pixels.data.set([gray, gray, gray, 255], 4 * index));
  context.putImageData(pixels, 0, 0);
}

// If this request fails, the page shows the error with the first drawing.
async function showModel() {
  try {
    const response = await fetch("healthz", { signal: AbortSignal.timeout(TIMEOUT) });
    const { version, sha256 } = await response.json();
    for (const [id, hash] of Object.entries({ version, sha256: sha256 || "not pinned" })) {
      byId(id).textContent = hash; // in full, so that it can be copied; the style sheet truncates it
      byId(id).title = hash;
    }
    byId("model").hidden = false;
  } catch {}
}

function showError(error) {
  show({ error });
}

// Drawing.

let stroke = null; // the stroke that the visitor is drawing

function point(event) {
  const { left, top, width, height } = ink.getBoundingClientRect();
  return [((event.clientX - left) * SIDE) / width, ((event.clientY - top) * SIDE) / height];
}

ink.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  ink.setPointerCapture(event.pointerId);
  stroke = [point(event)];
  addState({ strokes: [...current().strokes, stroke], picture: null });
});

ink.addEventListener("pointermove", (event) => {
  if (!stroke || !event.isPrimary) return;
  const events = event.getCoalescedEvents?.() ?? [];
  stroke.push(...(events.length ? events : [event]).map(point));
  update();
});

for (const end of ["pointerup", "pointercancel"]) {
  ink.addEventListener(end, (event) => {
    if (!stroke || !event.isPrimary) return;
    stroke = null;
    update();
  });
}

// Buttons, keys and files.

byId("undo").addEventListener("click", undo);
byId("clear").addEventListener("click", clear);
byId("again").addEventListener("click", update);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") clear();
  else if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") undo();
  else return;
  event.preventDefault();
});

byId("file").addEventListener("change", ({ target }) => {
  if (target.files.length) addFile(target.files[0]);
  target.value = ""; // so that the visitor can choose the same file again
});

samples.addEventListener("change", ({ target }) => addSample(target.value));
// The service reports why it cannot decode the picture.
image.addEventListener("error", () => (image.hidden = true));

document.addEventListener("paste", ({ clipboardData }) => {
  if (clipboardData.files.length) addFile(clipboardData.files[0]);
  else showError("The clipboard contains no picture.");
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  pad.classList.add("drop");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) pad.classList.remove("drop");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  pad.classList.remove("drop");
  if (event.dataTransfer.files.length) addFile(event.dataTransfer.files[0]);
  else showError("The dropped item is not a picture file.");
});

paint();
showModel();
