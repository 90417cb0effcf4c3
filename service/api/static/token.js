// A service with --token-file answers 401 without its token. The page asks for the token once, and
// keeps it until the tab is closed.

const KEY = "token";
const dialog = document.getElementById("token");
const input = dialog.querySelector("input");
let asked; // the promise of the open dialog

export const token = () => sessionStorage.getItem(KEY);
export const forgetToken = () => sessionStorage.removeItem(KEY);

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
  sessionStorage.setItem(KEY, input.value.trim());
  dialog.close();
});
