"use strict";

// The page at / keeps its token under the same key. The browser forgets it with the tab.
const KEY = "token";
const SCHEME = "token"; // the name of the security scheme in openapi.json

const page = document.getElementById("docs");

const keepToken = () => ({
  statePlugins: {
    auth: {
      wrapActions: {
        authorize: (original) => (schemes) => {
          sessionStorage.setItem(KEY, schemes[SCHEME].value);
          return original(schemes);
        },
        logout: (original) => (names) => {
          sessionStorage.removeItem(KEY);
          return original(names);
        },
      },
    },
  },
});

// As of Swagger UI 5.34, the fields of parameters and of bodies, and the button that closes a dialog,
// have no accessible name.
function nameControls() {
  const fields = ".opblock-body :is(input, select, textarea):not([aria-label])";
  for (const field of page.querySelectorAll(fields)) {
    const { paramName, propertyName } = field.closest("tr")?.dataset ?? {};
    field.setAttribute("aria-label", paramName ?? propertyName ?? "Request body");
  }
  page.querySelector(".close-modal")?.setAttribute("aria-label", "Close");
}

new MutationObserver(nameControls).observe(page, { childList: true, subtree: true });

const ui = SwaggerUIBundle({
  url: "/openapi.json",
  domNode: page,
  deepLinking: true,
  plugins: [keepToken],
  onComplete: () => {
    const token = sessionStorage.getItem(KEY);
    if (token) ui.preauthorizeApiKey(SCHEME, token);
  },
});
