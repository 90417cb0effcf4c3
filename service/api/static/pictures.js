// Pictures that the visitor chooses, photographs, drops or pastes.

// What to try in turn until a picture is small enough for a slow line: the longer side in pixels,
// and the quality. More pixels help no reader.
const SIZES = [[2000, 0.8], [2000, 0.5], [1000, 0.8], [1000, 0.5]];
const ENOUGH = 1 << 18; // bytes
const TYPES = ["image/png", "image/jpeg", "image/bmp", "image/gif", "image/webp"];

// Returns a picture {blob, name, url}, or null if the file is none.
export async function read(file) {
  if (file.type.includes("svg")) return null; // a document; it has no pixels of its own
  let bitmap;
  try {
    bitmap = await createImageBitmap(file); // upright, as EXIF says
  } catch {
    return null;
  }
  const isSmall = Math.max(bitmap.width, bitmap.height) <= SIZES[0][0] && file.size <= ENOUGH;
  const blob = isSmall && TYPES.includes(file.type) ? file : await smaller(bitmap, file.type);
  bitmap.close();
  if (!blob) return null; // the browser lacks the memory
  return { blob, name: file.name || "picture", url: URL.createObjectURL(blob) };
}

async function smaller(bitmap, type) {
  // WebP keeps transparency, which JPEG cannot. Browsers without it write PNG.
  const output = type === "image/jpeg" ? type : "image/webp";
  let blob;
  for (const [longest, quality] of SIZES) {
    const factor = Math.min(1, longest / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(Math.round(bitmap.width * factor), 1);
    canvas.height = Math.max(Math.round(bitmap.height * factor), 1);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    blob = await new Promise((resolve) => canvas.toBlob(resolve, output, quality));
    if (!blob || blob.size <= ENOUGH) break;
  }
  return blob;
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
