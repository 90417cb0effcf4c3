// A service with --token-file answers 401 without its token. The page asks for the token once, and
// keeps it until the tab is closed.

const KEY = "token";
const dialog = document.getElementById("token");
const input = dialog.querySelector("input");
let asked; // the promise of the open dialog

let kept = stored("getItem");

export const token = () => kept;

export function forgetToken() {
  kept = null;
  stored("removeItem");
}

// Calls the storage of the tab, which the browser's settings may block. The page then keeps the token
// until it is loaded again.
function stored(method, ...values) {
  try {
    return sessionStorage[method](KEY, ...values);
  } catch {
    return null;
  }
}

// Returns whether the visitor entered a token.
export function askForToken() {
  asked ??= new Promise((resolve) => {
    input.value = "";
    dialog.showModal();
    dialog.addEventListener("close", () => {
      asked = null;
      resolve(Boolean(token()));
    }, { once: true });
  });
  return asked;
}

dialog.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault(); // the policy of the page forbids forms to go anywhere
  kept = input.value.trim();
  stored("setItem", kept);
  dialog.close();
});
