// A link that brings back a drawing, and the request for what is on the pad as code.

import { current, isBlank } from "./history.js";
import { token } from "./token.js";
import { urlOf } from "./service.js";
import { SIDE, toPicture } from "./strokes.js";
import { words } from "./words.js";

const PREFIX = "#drawing="; // a fragment, so that the drawing never reaches a server
const COARSE = 3; // units: the smallest distance of the points in a link
const LONGEST = 255; // points of a stroke in a link; its length is one byte
const TOO_LONG = 100_000; // characters; longer fragments are no drawing
const dialog = document.getElementById("share");

export function start() {
  document.getElementById("open-share").addEventListener("click", async () => {
    if (isBlank()) return;
    await fill();
    dialog.showModal();
  });
  dialog.addEventListener("click", ({ target }) => {
    if (target.value === "copy") copy(target);
    else if (target.value === "close") dialog.close();
  });
}

async function fill() {
  const { strokes, picture, result } = current();
  const link = new URL(toFragment(strokes), document.baseURI).href;
  document.getElementById("link").textContent = link;
  document.getElementById("link").closest("section").hidden = Boolean(picture);
  const sent = picture ?? result?.picture ?? (await toPicture(strokes));
  const content = picture ? null : await toBase64(sent.blob);
  document.getElementById("curl").textContent = curl(sent, content);
  document.getElementById("python").textContent = python(sent, content);
  for (const button of dialog.querySelectorAll("[value=copy]")) button.textContent = words.copy;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl({ name, many }, content) {
  const header = token() ? ' -H "Authorization: Bearer $TOKEN"' : "";
  if (content === null) return `curl${header} -F ${quoted(`image=@"${name}"`)} '${urlOf(many)}'`;
  return `echo ${content} | base64 -d | curl${header} -F 'image=@-;filename=${name}' '${urlOf(many)}'`;
}

function python({ name, many }, content) {
  const file = content === null ? `open(${JSON.stringify(name)}, "rb")` : `("${name}", base64.b64decode("${content}"))`;
  const header = token() ? ', headers={"Authorization": f"Bearer {os.environ[\'TOKEN\']}"}' : "";
  const modules = ["requests", ...(content === null ? [] : ["base64"]), ...(token() ? ["os"] : [])];
  return `import ${modules.sort().join(", ")}; print(requests.post("${urlOf(many)}", files={"image": ${file}}${header}).json())`;
}

async function toBase64(blob) {
  return btoa(String.fromCharCode(...new Uint8Array(await blob.arrayBuffer())));
}

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = words.copied;
  } catch {
    getSelection().selectAllChildren(code); // only a secure page may write to the clipboard
  }
}

function toFragment(strokes) {
  const bytes = strokes.flatMap((stroke) => {
    const points = thinned(stroke).flatMap((point) => point.map(toByte));
    return [points.length / 2, ...points];
  });
  const text = btoa(String.fromCharCode(...bytes));
  return PREFIX + text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

const toByte = (length) => Math.round((Math.min(Math.max(length, 0), SIDE) / SIDE) * 255);

function thinned(stroke) {
  const kept = [stroke[0]];
  for (const [x, y] of stroke) {
    const [lastX, lastY] = kept.at(-1);
    if (Math.hypot(x - lastX, y - lastY) >= COARSE) kept.push([x, y]);
  }
  const factor = Math.ceil(kept.length / LONGEST);
  return kept.filter((_, index) => index % factor === 0);
}

// Returns the strokes of a link, undefined if it has none, or null if they are damaged.
export function fromFragment(fragment) {
  if (!fragment.startsWith(PREFIX)) return undefined;
  if (fragment.length > TOO_LONG) return null;
  try {
    const text = fragment.slice(PREFIX.length).replaceAll("-", "+").replaceAll("_", "/");
    const bytes = [...atob(text)].map((character) => character.charCodeAt(0));
    const strokes = [];
    while (bytes.length) {
      const length = 2 * bytes.shift();
      const points = bytes.splice(0, length);
      if (!length || points.length < length) return null;
      const stroke = [];
      while (points.length) stroke.push(points.splice(0, 2).map((byte) => (byte / 255) * SIDE));
      strokes.push(stroke);
    }
    return strokes.length ? strokes : null;
  } catch {
    return null;
  }
}
