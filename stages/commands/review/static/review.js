// The page of a review. The server keeps the state; this script shows it and sends the decisions.

const find = (id) => document.getElementById(id);
const list = find("corrections");
let state;
let current = 0; // the place of the correction that the arrow keys start from
let anchor = 0; // the other end of the selected range
let work = Promise.resolve(); // one request at a time, in the order of the keys

const selected = () => {
  const [first, last] = [Math.min(anchor, current), Math.max(anchor, current)];
  return state.corrections.slice(first, last + 1).map((one) => one.sha256);
};

function card(one) {
  const existing = find(one.sha256);
  if (existing) return existing;
  const item = find("correction").content.cloneNode(true).firstElementChild;
  item.id = one.sha256;
  item.querySelector(".picture").src = `picture/${one.sha256}`;
  item.querySelector(".image").src = `image/${one.sha256}`;
  const answer = item.querySelector(".answer");
  answer.textContent = one.answered ?? "–";
  if (one.confidence !== null) {
    const confidence = document.createElement("small");
    confidence.textContent = ` ${(100 * one.confidence).toFixed(1)}%`;
    answer.append(confidence);
  }
  item.querySelector(".label").textContent = one.label;
  const note = item.querySelector(".note");
  const version = one.version ? `, version ${one.version.slice(0, 8)}` : "";
  note.textContent = `${new Date(one.time).toLocaleString()}${version}`;
  if (!one.has_digit) note.textContent = `The service finds no digit. ${note.textContent}`;
  if (one.is_held_back) {
    note.textContent = "Equals a digit of a test set: it cannot be accepted.";
    note.classList.add("held-back");
  }
  return item;
}

function show(next) {
  state = next;
  list.replaceChildren(...state.corrections.map(card));
  find("counts").textContent =
    `${state.waiting} waiting, ${state.accepted} accepted, ${state.rejected} rejected`;
  find("undo").disabled = !state.can_undo;
  for (const id of ["accept", "reject", "all"]) find(id).disabled = !state.waiting;
  find("end").hidden = state.waiting > 0;
  find("end").textContent = "No correction waits. Press Finish to write the accepted ones.";
  find("problems").hidden = !state.problem_count;
  find("problems").querySelector("summary").textContent =
    `${state.problem_count} skipped: they are no valid corrections`;
  find("problems").querySelector("ul").replaceChildren(
    ...state.problems.map((sentence) => {
      const item = document.createElement("li");
      item.textContent = sentence;
      return item;
    }),
  );
  const places = (state.undone ?? [])
    .map((sha256) => state.corrections.findIndex((one) => one.sha256 === sha256))
    .filter((place) => place >= 0);
  if (places.length) select(Math.max(...places), Math.min(...places));
  else select(Math.min(current, anchor));
}

function select(place, from = place) {
  const within = (number) => Math.max(0, Math.min(number, state.corrections.length - 1));
  current = within(place);
  anchor = within(from);
  const hashes = new Set(selected());
  [...list.children].forEach((item, number) => {
    item.setAttribute("aria-selected", hashes.has(item.id));
    item.classList.toggle("current", number === current);
  });
  const item = list.children[current];
  list.setAttribute("aria-activedescendant", item?.id ?? "");
  item?.scrollIntoView({ block: "nearest" });
}

async function request(path, body) {
  const options = body && { method: "POST", body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function act(path, body = () => ({})) {
  work = work.then(async () => {
    document.body.setAttribute("aria-busy", true);
    try {
      const answer = await request(path, body());
      find("message").textContent = answer.message ?? "";
      if (answer.summary) {
        for (const id of ["actions", "corrections", "problems"]) find(id).hidden = true;
        document.querySelector(".hint").hidden = true;
        find("end").hidden = false;
        find("end").textContent = answer.summary;
        find("counts").textContent = "The review is finished.";
      } else show(answer);
    } catch (error) {
      find("message").textContent =
        error instanceof TypeError
          ? "The review has ended. Run “make review” again to continue."
          : error.message;
    } finally {
      document.body.removeAttribute("aria-busy");
    }
  });
}

const chosen = () => ({ hashes: selected() });
const accept = () => act("accept", chosen);
const reject = () => act("reject", chosen);
const undo = () => act("undo");
const all = () => select(0, state.corrections.length - 1);

function columns() {
  const [first, ...others] = list.children;
  const wrapped = others.findIndex((item) => item.offsetTop > first.offsetTop);
  return wrapped < 0 ? list.children.length : wrapped + 1;
}

const STEPS = {
  ArrowLeft: () => -1,
  ArrowRight: () => 1,
  ArrowUp: () => -columns(),
  ArrowDown: () => columns(),
};

function keydown(event) {
  const { key } = event;
  if (!state || list.hidden || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    if (key === "a") all();
    else if (key === "z") undo();
    else return;
  } else if (key in STEPS && list.children.length) {
    const place = current + STEPS[key]();
    if (place >= 0 && place < list.children.length) select(place, event.shiftKey ? anchor : place);
  } else if (/^[0-9]$/.test(key)) {
    act("accept", () => ({ ...chosen(), label: Number(key) }));
  } else if (key === "a" || key === "A") accept();
  else if (key === "r" || key === "R" || key === "Delete") reject();
  else if (key === "u" || key === "U") undo();
  else if (key === "Escape") select(current);
  else return;
  event.preventDefault();
}

document.addEventListener("keydown", keydown);
list.addEventListener("click", (event) => {
  const place = [...list.children].indexOf(event.target.closest("li"));
  if (place >= 0) select(place, event.shiftKey ? anchor : place);
});
find("accept").addEventListener("click", accept);
find("reject").addEventListener("click", reject);
find("undo").addEventListener("click", undo);
find("all").addEventListener("click", all);
find("finish").addEventListener("click", () => act("finish"));
request("state").then((first) => {
  show(first);
  list.focus();
});
