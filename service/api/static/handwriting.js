// The answer, as a broad pen writes it. The paths are in a box of 100 by 140 units.

const PATHS = {
  0: "M54 8C22 8 12 44 12 72c0 36 14 60 38 60 26 0 38-30 38-62C88 36 76 8 54 8Z",
  1: "M26 46 58 10 54 132",
  2: "M16 38C20 12 52 0 72 16c22 18 6 48-14 68L16 130c24-8 44 4 72-4",
  3: "M18 24C36 2 80 2 80 34c0 24-22 32-38 32 24-2 48 10 46 36-2 32-50 38-74 12",
  4: "M58 8C48 40 30 66 10 92l82-4M70 54 64 134",
  5: "M84 12 32 14 26 62c22-12 60-8 60 28 0 38-46 52-72 28",
  6: "M74 8C40 26 14 66 16 98c2 28 28 38 48 30 24-10 28-42 6-54-22-10-46 6-52 26",
  7: "M14 18C40 10 62 18 88 12 70 50 54 90 46 134M30 74l48-6",
  8: "M78 28C68 2 26 4 26 34c0 28 58 36 58 70 0 34-66 34-66 0 0-34 60-42 60-76Z",
  9: "M80 38C74 6 24 4 22 42c0 38 50 34 58-6 2 34-2 66-12 98",
  "?": "M20 36C24 4 80 2 80 38c0 26-28 28-30 56M50 128v1",
  "!": "M50 10v82M50 128v1",
  "…": "M18 128v1M50 128v1M82 128v1",
};
const NIB = [[-3.2, 2.4], [-1.6, 1.2], [0, 0], [1.6, -1.2], [3.2, -2.4]];

// Returns pictures of the characters of a text.
export function write(text) {
  return [...text].map((character) => {
    const svg = create("svg", { viewBox: "-4 -4 108 148", class: "written" });
    for (const [x, y] of NIB)
      svg.append(create("path", { d: PATHS[character], pathLength: 1, transform: `translate(${x} ${y})` }));
    return svg;
  });
}

function create(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
