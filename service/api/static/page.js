// The page's one idea: the pad goes through states, and the answer belongs to the last of them.
// A state is {strokes, picture}: lines of [x, y], or a picture in their place, or neither.

const SIDE = 280; // of the image that is sent, in which the points of strokes are counted
const PEN = 22; // as wide as MNIST's lines are, at 28 pixels
const SURE = 0.8; // below it, the answer is said to be a guess
const TIMEOUT = 15_000; // milliseconds; a request that hangs would hold up all later ones

const find = (id) => document.getElementById(id);
const pad = find("pad");
const ink = find("ink");
const image = find("picture");
const samples = find("samples");

const states = [{ strokes: [], picture: null }];
const current = () => states.at(-1);
const isBlank = ({ strokes, picture }) => !strokes.length && !picture;

function enter(state) {
  states.push(state);
  changed();
}

function undo() {
  if (states.length === 1) return;
  stroke = null;
  states.pop();
  changed();
}

function clear() {
  stroke = null;
  if (!isBlank(current())) enter({ strokes: [], picture: null });
}

function take(file) {
  stroke = null;
  const content = () => file;
  enter({ strokes: [], picture: { name: file.name, url: URL.createObjectURL(file), content } });
}

function takeSample(name) {
  const url = `static/samples/${name}`;
  const content = async () => (await request(url)).blob();
  enter({ strokes: [], picture: { name, url, content, sample: true } });
}

// Asking: one request at a time.

let asking = false;
let behind = false; // the pad has changed since the last request

async function changed() {
  paint();
  behind = true;
  if (asking) return;
  asking = true;
  while (behind) {
    behind = false;
    const asked = current();
    const answer = isBlank(asked) ? null : await ask(asked);
    // The line that is being drawn may be a little ahead of its answer; nothing else may.
    if (asked === current() && !(behind && !stroke)) show(answer);
  }
  asking = false;
}

async function ask({ strokes, picture }) {
  try {
    const form = new FormData();
    if (picture) form.append("image", await picture.content(), picture.name);
    else form.append("image", await drawing(strokes), "drawing.png");
    const url = "recognize?probabilities=true&preprocessed=true";
    const response = await request(url, { method: "POST", body: form });
    const answer = await response.json();
    if (!response.ok) return { error: answer.error, again: response.status >= 500 };
    return {
      label: answer.labels[0],
      row: answer.probabilities[0],
      preprocessed: answer.preprocessed[0],
    };
  } catch {
    return { error: "The service does not answer.", again: true };
  }
}

async function request(url, options) {
  const response = await fetch(url, { ...options, signal: AbortSignal.timeout(TIMEOUT) });
  const version = response.headers.get("X-Model-Version");
  if (version) showVersion(version);
  return response;
}

function drawing(strokes) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, SIDE, SIDE);
  context.strokeStyle = "white"; // on black, as the network learned it
  trace(context, strokes);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// Showing.

function paint() {
  const { strokes, picture } = current();
  const context = ink.getContext("2d");
  context.reset();
  context.scale(ink.width / SIDE, ink.height / SIDE);
  trace(context, strokes); // in black; the style sheet turns it in dark mode
  image.hidden = !picture;
  if (picture && image.getAttribute("src") !== picture.url) image.src = picture.url;
  image.classList.toggle("sharp", Boolean(picture?.sample));
  image.alt = picture ? `The picture ${picture.name}` : "";
  const sample = picture?.sample && picture.name;
  for (const radio of samples.querySelectorAll("input")) radio.checked = radio.value === sample;
  find("undo").disabled = states.length === 1;
  find("clear").disabled = isBlank(current());
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
    context.fill(); // a dot is a line of no length, which a canvas does not draw
    context.beginPath();
    context.moveTo(x, y);
    // Curves through the midpoints: the path of a quick hand comes in few points.
    for (const [number, [x, y]] of points.entries()) {
      const [nextX, nextY] = points[number + 1] ?? [x, y];
      context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    }
    context.stroke();
  }
}

const rows = Array.from({ length: 10 }, (_, digit) => {
  const row = find("rows").insertRow();
  const head = row.appendChild(document.createElement("th"));
  head.scope = "row";
  head.textContent = digit;
  const bar = row.insertCell().appendChild(document.createElement("div"));
  bar.className = "bar";
  return { row, fill: bar.appendChild(document.createElement("div")), text: row.insertCell() };
});

function show(answer) {
  const { label, row, preprocessed, error, again } = answer ?? {};
  const text = error ?? (row ? sentence(label, row) : "");
  const unsure = Boolean(row) && row[label] < SURE;
  find("digit").textContent = label ?? (error ? "!" : "?");
  find("sentence").textContent = text || "Nothing drawn yet";
  find("again").hidden = !again;
  document.body.dataset.state = error ? "error" : row ? (unsure ? "unsure" : "sure") : "blank";
  rows.forEach((each, digit) => {
    each.fill.style.width = `${100 * (row?.[digit] ?? 0)}%`;
    each.text.textContent = row ? percent(row[digit], 1) : "–";
    each.row.classList.toggle("best", digit === label);
  });
  showPreprocessed(preprocessed);
  // Said when the hand rests: a sentence for each point of a line would never end.
  if (!stroke && !behind) find("status").textContent = text;
}

function sentence(label, row) {
  const sure = `${percent(row[label], 0)} sure`;
  if (row[label] >= SURE) return `This is ${article(label)}, ${sure}`;
  const second = row.indexOf(Math.max(...row.filter((_, digit) => digit !== label)));
  return `Not sure: perhaps ${article(label)} (${sure}), or ${article(second)}`;
}

const article = (digit) => `${digit === 8 ? "an" : "a"} ${digit}`;

// Rounded down, so that nothing is ever 100 % sure that is not.
function percent(ratio, digits) {
  const scale = 10 ** digits;
  const floor = Math.floor(Math.min(ratio, 0.9999) * 100 * scale) / scale;
  return `${floor.toFixed(digits)}\u00a0%`; // never broken between two lines
}

function showPreprocessed(greys) {
  const context = find("preprocessed").getContext("2d");
  context.clearRect(0, 0, 28, 28);
  if (!greys) return;
  const pixels = context.createImageData(28, 28);
  greys.flat().forEach((grey, place) => pixels.data.set([grey, grey, grey, 255], 4 * place));
  context.putImageData(pixels, 0, 0);
}

function showVersion(version) {
  find("version").textContent = version; // whole, to be copied; the style sheet cuts it short
  find("version").title = version;
  find("model").hidden = false;
}

function complain(error) {
  show({ error });
}

// The hand.

let stroke = null; // the one that is being drawn

function place(event) {
  const { left, top, width, height } = ink.getBoundingClientRect();
  return [((event.clientX - left) * SIDE) / width, ((event.clientY - top) * SIDE) / height];
}

ink.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  ink.setPointerCapture(event.pointerId);
  stroke = [place(event)];
  enter({ strokes: [...current().strokes, stroke], picture: null });
});

ink.addEventListener("pointermove", (event) => {
  if (!stroke || !event.isPrimary) return;
  const events = event.getCoalescedEvents?.() ?? [];
  stroke.push(...(events.length ? events : [event]).map(place));
  changed();
});

for (const end of ["pointerup", "pointercancel"]) {
  ink.addEventListener(end, (event) => {
    if (!stroke || !event.isPrimary) return;
    stroke = null;
    changed();
  });
}

// Buttons, keys and files.

find("undo").addEventListener("click", undo);
find("clear").addEventListener("click", clear);
find("again").addEventListener("click", changed);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") clear();
  else if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") undo();
  else return;
  event.preventDefault();
});

find("file").addEventListener("change", ({ target }) => {
  if (target.files.length) take(target.files[0]);
  target.value = ""; // so that the same file can be taken again
});

samples.addEventListener("change", ({ target }) => takeSample(target.value));
image.addEventListener("error", () => (image.hidden = true)); // the service says what is wrong

document.addEventListener("paste", ({ clipboardData }) => {
  if (clipboardData.files.length) take(clipboardData.files[0]);
  else complain("There is no picture in the clipboard.");
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
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  else complain("That was no picture file.");
});

paint();
request("healthz").catch(() => {}); // for the version; what fails, fails again on the first drawing
