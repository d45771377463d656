// The records of images that people save, as facemask/io/records.py writes them; `settings` are its constants.

/** Return an image and its faces as an object for JSON, numbers rounded. */
export function imageRecord(name, {width, height, faces}, {DIGITS}) {
  const rounded = value => Math.round(value * 10 ** DIGITS) / 10 ** DIGITS;
  return {
    image: name,
    width,
    height,
    faces: faces.map(face => ({
      box: face.box,
      confidence: rounded(face.confidence),
      label: face.label,
      probability: rounded(face.probability),
      unsure: face.unsure,
      probabilities: Object.fromEntries(Object.entries(face.probabilities).map(([label, value]) => [label, rounded(value)])),
    })),
  };
}

/** Return a CSV table with one row per face of the records. */
export function toCsv(records, {CSV_COLUMNS}) {
  const rows = records.flatMap(({image, faces}) =>
    faces.map(({box: [x1, y1, x2, y2], ...face}) => {
      const values = {image, x1, y1, x2, y2, ...face};
      return CSV_COLUMNS.map(column => values[column]);
    }));
  const quoted = value => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  return [CSV_COLUMNS, ...rows].map(row => `${row.map(value => quoted(String(value))).join()}\r\n`).join("");
}
