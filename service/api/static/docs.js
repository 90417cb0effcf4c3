"use strict";

// The page at / keeps its token under the same key. The browser forgets it with the tab.
const KEY = "token";
const SCHEME = "token"; // the name of the security scheme in openapi.json

const page = document.getElementById("docs");

// Calls the storage of the tab, which the browser's settings may block.
function stored(method, ...values) {
  try {
    return sessionStorage[method](KEY, ...values);
  } catch {
    return null;
  }
}

// The service may be behind a proxy that adds a prefix to its paths.
const root = new URL("..", location.href).href.replace(/\/$/, "");

const adapt = () => ({
  statePlugins: {
    spec: {
      wrapActions: {
        updateJsonSpec: (original) => (spec) => original({ ...spec, servers: [{ url: root }] }),
      },
    },
    auth: {
      wrapActions: {
        authorize: (original) => (schemes) => {
          stored("setItem", schemes[SCHEME].value);
          return original(schemes);
        },
        logout: (original) => (names) => {
          stored("removeItem");
          return original(names);
        },
      },
    },
  },
});

// Opens the dialog in which one enters the token.
function askForToken() {
  if (ui.authSelectors.authorized().size) ui.authActions.logout([SCHEME]);
  ui.authActions.showDefinitions(ui.authSelectors.definitionsToAuthorize());
}

// As of Swagger UI 5.34, the fields of parameters and of bodies, the list of servers, and the button
// that closes a dialog have no accessible name.
function nameControls() {
  const fields = ".opblock-body :is(input, select, textarea):not([aria-label])";
  for (const field of page.querySelectorAll(fields)) {
    const { paramName, propertyName } = field.closest("tr")?.dataset ?? {};
    field.setAttribute("aria-label", paramName ?? propertyName ?? "Request body");
  }
  page.querySelector("#servers")?.setAttribute("aria-label", "Server");
  page.querySelector(".close-modal")?.setAttribute("aria-label", "Close");
}

new MutationObserver(nameControls).observe(page, { childList: true, subtree: true });

const ui = SwaggerUIBundle({
  url: "../openapi.json",
  domNode: page,
  deepLinking: true,
  plugins: [adapt],
  responseInterceptor: (response) => {
    if (response.status === 401) askForToken();
    return response;
  },
  onComplete: () => {
    const token = stored("getItem");
    if (token) ui.preauthorizeApiKey(SCHEME, token);
  },
});
