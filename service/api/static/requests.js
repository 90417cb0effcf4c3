// When to send what is on the pad, and what to show until the answer is there.
// `show` receives {kind, result, keep}: kind is "blank", "waiting", "recognizing", "result" or the
// reason why there is no answer.

import { current, isBlank } from "./history.js";
import { read } from "./reading.js";
import { ServiceError, probe, recognize } from "./service.js";
import { toPicture } from "./strokes.js";
import { askForToken } from "./token.js";

// Milliseconds.
const LIVE = 700; // until the first request during a stroke; each further one takes twice as long
const PAUSE = 250; // after a stroke, because the next one may follow; longer after MANY requests
const NOTICE = 300; // until the page says that it waits
// Without an answer or progress for so long, the page asks whether the service is well. It asks again
// after twice as long, and so on.
const SLOW = 1200;
const TIMEOUT = 30_000; // as long as the service itself may take, see --timeout
const RETRIES = [1000, 2000, 4000, 8000, 15_000, 30_000];

const MAX_LIVE = 2; // requests during the strokes of one drawing
const MANY = 3; // requests for one drawing; each further one doubles the pause
const MAX_DOUBLINGS = 3;
const MAX = 8; // requests for one drawing; then the visitor has to ask for more

let show, reject;
let sent = 0; // requests after the strokes of the current drawing
let live = 0; // requests during its strokes
let failures = 0; // in a row
let isHung = false; // whether the page says so, while a request is in flight
let timer, noticeTimer, watch;
let purpose; // of `timer`: "live", "pause" or "retry"
let revision = 0; // of what is on the pad
let controller = null; // of the request in flight
let requested = null; // the state that the request in flight is about
let awaited = null; // the state that the page waits for
let answered = null; // the state whose result is shown

export function start(functions) {
  ({ show, reject } = functions);
  window.addEventListener("online", () => timer && failures && retry());
}

// Call this whenever what is on the pad changes.
export function update({ isDrawing = false } = {}) {
  const state = current();
  revision += 1;
  if (!isDrawing || state !== requested) abort();
  if (isDrawing) state.result = null;
  if (isBlank(state)) {
    cancel();
    sent = live = 0;
    answered = null;
    return show({ kind: "blank" });
  }
  if (state.picture) sent = live = 0;
  if (state.result) return finish(state, state.result);
  if (sent + live >= MAX) {
    cancel();
    answered = null;
    return show({ kind: "paused" });
  }
  wait(state);
  if (!isDrawing || purpose === "pause") stop(); // a stroke that has begun ends the pause before it
  if (timer || (isDrawing && live >= MAX_LIVE)) return;
  const doublings = Math.min(Math.max(sent + live - MANY, 0), MAX_DOUBLINGS);
  const pause = isDrawing ? LIVE * 2 ** live : PAUSE * 2 ** doublings;
  purpose = isDrawing ? "live" : "pause";
  timer = setTimeout(send, state.picture ? 0 : pause, isDrawing);
}

// Call this when something else is about to come onto the pad, such as a file.
export function prepare() {
  cancel();
  wait(current());
}

export function retry() {
  cancel();
  sent = live = 0;
  wait(current());
  send();
}

function abort() {
  controller?.abort();
  controller = requested = null;
  clearTimeout(watch);
  isHung = false;
}

function stop() {
  clearTimeout(timer);
  timer = purpose = null;
}

function cancel() {
  abort();
  stop();
  clearTimeout(noticeTimer);
  noticeTimer = awaited = null;
}

// Keeps the last answer in sight, dimmed, but only beside the drawing that it belongs to.
function wait(state) {
  if (awaited === state) return;
  awaited = state;
  const keep = Boolean(answered) && !answered.picture && !state.picture;
  if (!keep) answered = null;
  show({ kind: "waiting", keep });
  noticeTimer ??= setTimeout(() => {
    noticeTimer = null;
    show({ kind: "recognizing", keep: Boolean(answered) });
  }, NOTICE);
}

async function send(isDrawing = false) {
  abort();
  stop();
  if (isDrawing) live += 1;
  else sent += 1;
  const state = (requested = current());
  const mineRevision = revision;
  const mine = (controller = new AbortController());
  const { signal } = mine;
  try {
    const ask = async (picture) => {
      if (signal.aborted) throw new ServiceError("aborted");
      watchFor(mine);
      const answer = await recognize(picture, { signal, progress: (part) => report(mine, part) });
      return { ...answer, picture, toPad: picture.toPad };
    };
    let result = await ask(state.picture ?? (await toPicture(state.strokes)));
    if (result.picture.isWide && sent + live < MAX && read(result).kind === "none") {
      sent += 1;
      const number = await ask(await toPicture(state.strokes, true)); // the digits may touch
      if (read(number).kind !== "none") result = number;
    }
    if (mine !== controller) return;
    failures = 0;
    if (mineRevision === revision) state.result = result;
    finish(state, result);
  } catch (error) {
    if (mine === controller) fail(state, error, isDrawing);
  }
}

function report(mine, part) {
  if (mine !== controller) return;
  if (isHung) show({ kind: "recognizing" });
  isHung = false;
  watchFor(mine);
  if (requested.picture) show({ kind: "progress", part });
}

function finish(state, result) {
  cancel();
  answered = state;
  show({ kind: "result", result });
}

async function fail(state, { kind, status }, isDrawing = false) {
  if (kind === "aborted") return;
  cancel();
  if (kind === "locked" && isDrawing) return; // a dialog must not open during a stroke
  answered = null;
  if (kind === "locked") return (await askForToken()) ? retry() : show({ kind });
  if (kind === "refused" && state.picture) return reject(status);
  show({ kind: kind === "gone" && !navigator.onLine ? "offline" : kind });
  if (!["failed", "late", "refused"].includes(kind)) retryLater();
}

// Tries again when the service is well. A request to /healthz costs less than the picture.
function retryLater() {
  const pause = RETRIES[Math.min(failures, RETRIES.length - 1)];
  failures += 1;
  purpose = "retry";
  timer = setTimeout(async () => {
    const mine = timer;
    const health = await probe();
    if (mine !== timer) return;
    if (health === "well") return retry();
    show({ kind: health });
    retryLater();
  }, pause);
}

// Finds out why there is no answer: the service is slow, hung or gone. On a slow line, the probe is
// slow as well, so the request goes on unless the service is gone.
function watchFor(mine, pause = SLOW, deadline = Date.now() + TIMEOUT) {
  clearTimeout(watch);
  watch = setTimeout(async () => {
    const health = await probe();
    if (mine !== controller) return;
    if (health === "gone") return fail(requested, { kind: health });
    if (Date.now() > deadline) return fail(requested, { kind: "hung" });
    // The service may have lost the request meanwhile.
    if (isHung && health === "well" && !requested.picture) return retry();
    clearTimeout(noticeTimer);
    isHung = health === "hung";
    if (isHung) answered = null;
    show({ kind: isHung ? "hung" : "slow", keep: Boolean(answered) });
    watchFor(mine, 2 * pause, deadline);
  }, pause);
}
