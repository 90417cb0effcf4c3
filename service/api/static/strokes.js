// Strokes are lists of points [x, y] on a pad of SIDE units. This module makes a picture of them.

export const SIDE = 280;
const PEN = 22; // pixels: the stroke width in the picture that is sent, as wide as MNIST's
const BOX = 200; // pixels: the longer side of a digit with its pen; MNIST's digits fill 20 of 28
const MARGIN = (SIDE - BOX) / 2;
const DOT = 8; // units: a smaller drawing is a dot, and is not enlarged any further
// Fractions of the height of the drawing.
const NEAR = 0.1; // nearer strokes touch, so they belong to one digit
const WIDE = 1.1; // a single digit is rarely wider
const STEP = 4; // units: the largest distance between the points of a dense stroke

// Draws strokes; `map` converts their points to those of the canvas.
export function trace(context, strokes, width, map = (point) => point) {
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  context.fillStyle = context.strokeStyle;
  for (const points of strokes.map((stroke) => stroke.map(map))) {
    const [[x, y]] = points;
    context.beginPath();
    context.arc(x, y, width / 2, 0, 2 * Math.PI);
    context.fill(); // a canvas does not draw a line of length zero, such as a dot
    context.beginPath();
    context.moveTo(x, y);
    // Curves through the midpoints look smooth. A fast pointer reports only few points.
    for (const [index, [x, y]] of points.entries()) {
      const [nextX, nextY] = points[index + 1] ?? [x, y];
      context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    }
    context.stroke();
  }
}

// Returns the picture of a drawing, which does not depend on the size and the place of the drawing.
// `many` tells whether it is read as several digits, and `isWide` whether it may be several digits
// that touch.
export async function toPicture(strokes, many = isNumber(strokes)) {
  const { left, top, width, height } = boxOf(strokes);
  const longer = many ? Math.max(height, width / 10) : Math.max(height, width);
  const factor = (BOX - PEN) / Math.max(longer, DOT);
  const canvas = document.createElement("canvas");
  canvas.height = SIDE;
  canvas.width = many ? Math.ceil(width * factor + PEN + 2 * MARGIN) : SIDE;
  const shiftX = canvas.width / 2 - (left + width / 2) * factor;
  const shiftY = canvas.height / 2 - (top + height / 2) * factor;
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = "white"; // on black, as in MNIST
  trace(context, strokes, PEN, ([x, y]) => [x * factor + shiftX, y * factor + shiftY]);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  const toPad = ([x, y, w, h]) => [(x - shiftX) / factor, (y - shiftY) / factor, w / factor, h / factor];
  return { blob, name: "drawing.png", many, isWide: !many && width > WIDE * height, toPad };
}

// Returns whether strokes are certainly several digits beside each other.
function isNumber(strokes) {
  const { width, height } = boxOf(strokes);
  let groups = [];
  for (const stroke of strokes) {
    const joined = groups.filter((group) => belong(group, [stroke], NEAR * height));
    groups = groups.filter((group) => !joined.includes(group));
    groups.push([...joined.flat(), stroke]);
  }
  return width > DOT && groups.length > 1;
}

// Strokes belong to one digit if they touch, or if one is above or below the other.
function belong(group, other, near) {
  const [a, b] = [boxOf(group), boxOf(other)];
  const shared = Math.min(a.left + a.width, b.left + b.width) - Math.max(a.left, b.left);
  if (shared >= Math.min(a.width, b.width) / 2 - near) return true;
  const points = other.flatMap(dense);
  return group
    .flatMap(dense)
    .some(([x, y]) => points.some(([x2, y2]) => Math.hypot(x - x2, y - y2) <= near));
}

// Returns the box around the middle of the strokes.
function boxOf(strokes) {
  const points = strokes.flat();
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const [left, top] = [xs, ys].map((values) => values.reduce((a, b) => Math.min(a, b)));
  const [right, bottom] = [xs, ys].map((values) => values.reduce((a, b) => Math.max(a, b)));
  return { left, top, width: right - left, height: bottom - top };
}

// Adds points to a stroke until neighbors are near each other.
export function dense(points) {
  return points.flatMap(([x, y], index) => {
    const [nextX, nextY] = points[index + 1] ?? [x, y];
    const count = Math.max(Math.ceil(Math.hypot(nextX - x, nextY - y) / STEP), 1);
    return Array.from({ length: count }, (_, part) => [
      x + ((nextX - x) * part) / count,
      y + ((nextY - y) * part) / count,
    ]);
  });
}

// Removes what is within `radius` of a point. What remains of a stroke may be several strokes.
// Returns the same list if nothing is there.
export function erase(strokes, [x, y], radius) {
  const isErased = ([x2, y2]) => Math.hypot(x - x2, y - y2) <= radius;
  const rest = strokes.flatMap((stroke) => {
    const points = dense(stroke);
    if (!points.some(isErased)) return [stroke];
    const parts = [[]];
    for (const point of points) {
      if (isErased(point)) parts.push([]);
      else parts.at(-1).push(point);
    }
    return parts.filter((part) => part.length);
  });
  return strokes.every((stroke, index) => stroke === rest[index]) ? strokes : rest;
}
