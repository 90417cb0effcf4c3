// The language of the page, which is the first of the visitor's that the page knows.

const LANGUAGES = ["en", "de", "fr", "es", "zh"];
const wanted = navigator.languages?.find((tag) => isValid(tag) && LANGUAGES.includes(primary(tag))) ?? "en";

export const { default: words } = await import(`./languages/${primary(wanted)}.js`);

// Some browsers take a tag such as en-US@posix from the settings of the system.
function isValid(tag) {
  try {
    return Boolean(Intl.getCanonicalLocales(tag).length);
  } catch {
    return false;
  }
}

function primary(tag) {
  return tag.toLowerCase().split("-")[0];
}

const numbers = new Intl.NumberFormat(wanted, { useGrouping: false });
const whole = new Intl.NumberFormat(wanted, { style: "percent" });
const tenths = new Intl.NumberFormat(wanted, { style: "percent", minimumFractionDigits: 1 });

export const digits = (text) => String(text).replace(/\d/g, (digit) => numbers.format(digit));

const ROUNDING = 1e-9; // 100 * 0.29 is slightly less than 29

// Rounds down, because a model is never 100 % sure.
export function percent(ratio, decimals = 0) {
  const scale = 10 ** (decimals + 2);
  return (decimals ? tenths : whole).format(Math.floor(Math.min(ratio, 0.9999) * scale + ROUNDING) / scale);
}

// Puts the words into the document: data-text is the content of an element, data-label its name.
export function translate() {
  document.documentElement.lang = words.lang;
  document.documentElement.dir = words.dir;
  document.title = words.title;
  for (const element of document.querySelectorAll("[data-text]"))
    element.textContent = words[element.dataset.text];
  for (const element of document.querySelectorAll("[data-label]")) {
    const name = words[element.dataset.label];
    element.setAttribute("aria-label", name);
    if (element.matches("button")) element.title = name;
  }
  for (const image of document.querySelectorAll("#samples img")) {
    const [digit, number] = image.getAttribute("src").match(/\d+/g);
    image.alt = words.sample(digit, digits(digit), digits(number));
  }
}
