// The states of the pad, for undo and redo.
// A state is {strokes, picture}. It has strokes, or a picture, or neither. `result` is what the
// service answered, so that undo and redo need no request.

const states = [{ strokes: [], picture: null }];
let index = 0;

export const current = () => states[index];
export const isBlank = ({ strokes, picture } = current()) => !strokes.length && !picture;
export const canUndo = () => index > 0;
export const canRedo = () => index < states.length - 1;

export function add(state) {
  states.splice(index + 1, Infinity, { strokes: [], picture: null, ...state });
  index += 1;
}

export function undo() {
  if (canUndo()) index -= 1;
}

export function redo() {
  if (canRedo()) index += 1;
}

// Forgets the current state, which undo and redo must not bring back.
export function drop() {
  states.splice(index, 1);
  index -= 1;
}
