// The page: what the buttons, the keys, the files and the link do.

import * as feedback from "./feedback.js";
import * as history from "./history.js";
import * as pad from "./pad.js";
import * as pictures from "./pictures.js";
import * as requests from "./requests.js";
import * as service from "./service.js";
import * as share from "./share.js";
import * as why from "./why.js";
import { show } from "./result.js";
import { translate, words } from "./words.js";

const byId = (id) => document.getElementById(id);
const samples = byId("samples");
const notice = byId("notice");
const PATIENCE = 3000; // milliseconds for a sample to arrive
let choices = 0; // of what to show; the latest one counts

// Shows what is on the pad, and asks the service to read it.
function changed(how) {
  choices += 1;
  if (how) dismiss();
  pad.paint();
  showControls();
  requests.update(how);
}

function showControls() {
  const { picture } = history.current();
  // A disabled button would lose the focus.
  for (const [id, isPossible] of [
    ["undo", history.canUndo()],
    ["redo", history.canRedo()],
    ["clear", !history.isBlank() || !notice.hidden],
    ["open-share", !history.isBlank()],
  ])
    byId(id).setAttribute("aria-disabled", String(!isPossible));
  pad.hide(byId("several"), !picture || Boolean(picture.isSample));
  byId("many").checked = Boolean(picture?.many);
  for (const radio of samples.querySelectorAll("input"))
    radio.checked = Boolean(picture?.isSample) && radio.value === picture.name;
}

function go(step) {
  pad.interrupt();
  dismiss();
  step();
  changed();
}

function clear() {
  if (dismiss()) return showControls();
  pad.interrupt();
  if (!history.isBlank()) history.add({});
  changed();
}

async function use(file) {
  const mine = (choices += 1);
  requests.prepare();
  const picture = await pictures.read(file);
  if (mine !== choices) return;
  if (picture) return go(() => history.add({ picture }));
  changed();
  refuse("noPicture");
}

async function useSample(name) {
  const mine = (choices += 1);
  requests.prepare();
  const url = `static/samples/${name}`;
  const response = await fetch(url, { signal: AbortSignal.timeout(PATIENCE) }).catch(() => null);
  const blob = response?.ok && (await response.blob());
  if (mine !== choices) return;
  if (blob) return go(() => history.add({ picture: { name, url, blob, isSample: true } }));
  changed();
  refuse("noSample");
}

// Says why something cannot be used. What is on the pad stays.
function refuse(reason) {
  notice.textContent = words[reason];
  notice.hidden = false;
  showControls();
}

function dismiss() {
  if (notice.hidden) return false;
  notice.hidden = true;
  return true;
}

function open(fragment) {
  const strokes = share.fromFragment(fragment);
  if (strokes === null) refuse("badLink");
  if (strokes) go(() => history.add({ strokes }));
}

translate();
pad.start(changed);
pictures.start({ use, refuse });
share.start();
feedback.start();
why.start(() => refuse("noReason"));
requests.start({
  show(view) {
    const isFinal = !pad.isDrawing() && view.kind !== "waiting" && view.kind !== "progress";
    show(view, isFinal);
    if (view.kind === "progress") return;
    const isAnswered = view.kind === "result" && Boolean(history.current().result);
    why.offer(isAnswered);
    feedback.offer(isAnswered, !isFinal);
  },
  // The service cannot use a picture, so what was there before comes back.
  reject(status) {
    history.drop();
    changed();
    refuse(status === 422 ? "noInk" : status === 413 ? "tooLarge" : "noPicture");
  },
});

byId("undo").addEventListener("click", () => go(history.undo));
byId("redo").addEventListener("click", () => go(history.redo));
byId("clear").addEventListener("click", clear);
byId("again").addEventListener("click", requests.retry);
byId("many").addEventListener("change", ({ target }) =>
  go(() => history.add({ picture: { ...history.current().picture, many: target.checked } })));
samples.addEventListener("change", ({ target }) => useSample(target.value));

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const key = event.key.toLowerCase();
  const isCommand = event.ctrlKey || event.metaKey;
  if (key === "escape") clear();
  else if (isCommand && (key === "y" || (key === "z" && event.shiftKey))) go(history.redo);
  else if (isCommand && key === "z") go(history.undo);
  else return;
  event.preventDefault();
});

document.addEventListener("model", ({ detail: { version, sha256 } }) => {
  for (const [id, hash] of Object.entries({ version, sha256: sha256 || words.notPinned })) {
    byId(id).textContent = hash; // in full, so that it can be copied; the style sheet truncates it
    byId(id).title = hash;
  }
  byId("model").hidden = false;
});

window.addEventListener("hashchange", () => open(location.hash));
changed();
open(location.hash);
service.probe();
