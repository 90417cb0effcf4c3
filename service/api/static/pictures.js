// Pictures that the visitor chooses, photographs, drops or pastes.

const LONGEST = 2000; // pixels; more help no reader, and take long to send
const TYPES = ["image/png", "image/jpeg", "image/bmp", "image/gif", "image/webp"];
const LARGE = 4 << 20; // bytes
const QUALITY = 0.8;

// Returns a picture {blob, name, url} of at most LONGEST pixels, or null if the file is none.
export async function read(file) {
  if (file.type.includes("svg")) return null; // a document; it has no pixels of its own
  let bitmap;
  try {
    bitmap = await createImageBitmap(file); // upright, as EXIF says
  } catch {
    return null;
  }
  const { width, height } = bitmap;
  const isSmall = Math.max(width, height) <= LONGEST && file.size <= LARGE;
  const blob = isSmall && TYPES.includes(file.type) ? file : await smaller(bitmap, file.type);
  bitmap.close();
  if (!blob) return null; // the browser lacks the memory
  return { blob, name: file.name || "picture", url: URL.createObjectURL(blob) };
}

async function smaller(bitmap, type) {
  const factor = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(Math.round(bitmap.width * factor), 1);
  canvas.height = Math.max(Math.round(bitmap.height * factor), 1);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  // WebP keeps transparency, which JPEG cannot. Browsers without it write PNG.
  const output = type === "image/jpeg" ? type : "image/webp";
  return new Promise((resolve) => canvas.toBlob(resolve, output, QUALITY));
}

// Calls `use` with a file, or `refuse` with the reason why there is none.
export function start({ use, refuse }) {
  const take = (data) => {
    if (document.querySelector("dialog[open]")) return;
    if (data.files.length > 1) refuse("severalFiles");
    else if (data.files.length) use(data.files[0]);
    else refuse("noFile");
  };
  for (const input of document.querySelectorAll("input[type=file]"))
    input.addEventListener("change", () => {
      if (input.files.length) use(input.files[0]);
      input.value = ""; // so that the visitor can choose the same file again
    });
  document.addEventListener("paste", (event) => {
    if (!event.target.closest?.("input")) take(event.clipboardData);
  });
  const pad = document.getElementById("pad");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    pad.classList.add("drop");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) pad.classList.remove("drop");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    pad.classList.remove("drop");
    take(event.dataTransfer);
  });
}
