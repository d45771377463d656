// Class names and probabilities as people read them, as facemask/labels.py has them; `styles` is settings.labels.

/** Return the words of a detection's label, with a question mark if it is unsure. */
export function displayName({label, unsure}, styles) {
  return unsure ? `${styles[label].name}?` : styles[label].name;
}

/** Return a probability, 0..1, as people read it; what is not certain is never 100%: 0.997 is 99.7%. */
export function percent(value) {
  const text = (100 * value).toFixed(0);
  return value < 1 && text === "100" ? `${(100 * Math.min(value, 0.999)).toFixed(1)}%` : `${text}%`;
}

/** Return the faces by label: [{face, count}], the most frequent first; `face` is one of them. */
export function countFaces(faces) {
  const groups = new Map();
  for (const face of faces) {
    const key = `${face.label} ${face.unsure}`;
    groups.set(key, {face, count: (groups.get(key)?.count ?? 0) + 1});
  }
  return [...groups.values()].sort((one, other) => other.count - one.count);
}
