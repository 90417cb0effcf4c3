// Requests to the service. Every failure is a ServiceError whose `kind` says what to do about it.

import { forgetToken, token } from "./token.js";

const PROBE = 1000; // milliseconds: a healthy service answers /healthz in a few
// The kinds of failure. "gone": there is no connection. "busy": the service has too much to do.
// "late": the picture took too long to arrive. "refused": the service cannot use the picture.
// "locked": it wants a token. "failed": anything else.
const KINDS = {
  400: "refused", 401: "locked", 408: "late", 413: "refused", 415: "refused", 422: "refused",
  429: "busy", 502: "gone", 503: "busy", 504: "busy",
};

export class ServiceError extends Error {
  constructor(kind, status = 0) {
    super(kind);
    Object.assign(this, { kind, status });
  }
}

export function urlOf(many, extra = {}) {
  const query = new URLSearchParams({ probabilities: true, preprocessed: true, ...extra });
  // The page itself says which part of a number is probably not a digit.
  if (many) for (const [key, value] of [["digits", "many"], ["min_confidence", 0]]) query.set(key, value);
  return new URL(`recognize?${query}`, document.baseURI.split("#")[0]).href;
}

// Sends a picture, and returns {version, labels, probabilities, preprocessed, boxes, why}.
// XMLHttpRequest reports the progress of an upload, which fetch does not.
export function recognize({ blob, name, many }, { signal, progress = () => {}, extra = {} }) {
  const request = new XMLHttpRequest();
  const form = new FormData();
  form.append("image", blob, name);
  request.open("POST", urlOf(many, extra));
  request.responseType = "json";
  if (token()) request.setRequestHeader("Authorization", `Bearer ${token()}`);
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => request.abort());
    request.upload.addEventListener("progress", ({ loaded, total }) => progress(loaded / total));
    request.addEventListener("abort", () => reject(new ServiceError("aborted")));
    request.addEventListener("error", () => reject(new ServiceError("gone")));
    request.addEventListener("load", () => {
      const { status, response } = request;
      const version = request.getResponseHeader("X-Model-Version");
      noteVersion(version);
      if (status === 401) forgetToken();
      if (status === 200 && response?.labels) resolve({ ...response, version });
      else reject(new ServiceError(KINDS[status] ?? "failed", status));
    });
    request.send(form);
  });
}

// Sends the right label of a picture, with the answer of `recognize`.
export async function correct({ picture: { blob, name }, labels, version }, label, signal) {
  const form = new FormData();
  form.append("image", blob, name);
  for (const [key, value] of Object.entries({ label, answered: labels[0], version })) form.append(key, value);
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const { ok, status } = await fetch("feedback", { method: "POST", body: form, headers, signal }).catch(() => {
    throw new ServiceError("gone");
  });
  if (status === 401) forgetToken();
  if (!ok) throw new ServiceError(KINDS[status] ?? "failed", status);
}

// Returns whether the service is "well", "hung" (connected, but mute) or "gone".
export async function probe() {
  try {
    const response = await fetch("healthz", { signal: AbortSignal.timeout(PROBE), cache: "no-store" });
    if (!response.ok) return "gone";
    noteModel(await response.json());
    return "well";
  } catch (error) {
    return error.name === "TimeoutError" ? "hung" : "gone";
  }
}

let shown; // the version in the footer

function noteVersion(version) {
  if (version && version !== shown) probe();
}

function noteModel({ version, sha256 }) {
  shown = version;
  document.dispatchEvent(new CustomEvent("model", { detail: { version, sha256 } }));
}
