// Boxes and labels on a sheet of shared.js, as facemask/drawing.py draws them; `settings` is settings.json.

import {displayName, percent} from "./labels.js";
import {labelAbove, placeBox, textOn} from "./shared.js";

const THICKNESS = 2.5; // of a box, in pixels as people see them

/**
 * Draw faces, the first on top. A label that would cover a face or another label is left out; returns how many were. A sheet
 * has the pen of a canvas, its width and height, the scale and place of the image in it, and how many dots a pixel has.
 */
export function drawFaces(sheet, faces, settings) {
  for (const face of [...faces].reverse()) drawBox(sheet, face, settings);
  const labels = placeLabels(sheet, faces, settings);
  for (const label of labels.reverse()) drawLabel(sheet, label, settings.drawing.dark);
  return faces.length - labels.length;
}

/** Draw the box of a face: thin, and of a small face its corners alone, if the label is unsure. */
function drawBox(sheet, face, {labels, drawing}) {
  const {pen, dots} = sheet, [x1, y1, x2, y2] = placeBox(sheet, face.box);
  const isSmall = Math.min(x2 - x1, y2 - y1) < drawing.SMALL_FACE * THICKNESS * dots;
  pen.strokeStyle = labels[face.label].colour;
  pen.lineWidth = isSmall || face.unsure ? dots : THICKNESS * dots;
  pen.beginPath();
  if (isSmall && face.unsure) {
    const length = Math.min(x2 - x1, y2 - y1) / 4;
    for (const [x, right] of [[x1, length], [x2, -length]]) {
      for (const [y, down] of [[y1, length], [y2, -length]]) {
        pen.moveTo(x + right, y);
        pen.lineTo(x, y);
        pen.lineTo(x, y + down);
      }
    }
  } else {
    pen.rect(x1, y1, x2 - x1, y2 - y1);
  }
  pen.stroke();
}

/** Return a label for each face that has room for one above or below it. */
function placeLabels(sheet, faces, {labels, drawing}) {
  const boxes = faces.map(face => placeBox(sheet, face.box)), taken = [...boxes], placed = [];
  faces.forEach((face, number) => {
    const label = labelAbove(sheet, face, `${displayName(face, labels)} ${percent(face.probability)}`);
    const {wide, high} = label, [x1, y1, x2, y2] = boxes[number];
    if (faces.length > drawing.CROWD && wide > drawing.MAX_LABEL_WIDTH * (x2 - x1)) return;
    const begin = Math.min(label.left, sheet.width - wide), end = Math.max(x2 - wide, 0);
    const places = [[begin, y1 - high], [end, y1 - high], [begin, y2], [end, y2]];
    if (high <= drawing.MAX_COVERED * (y2 - y1)) places.push([begin, y1]); // a face that fills the image
    const others = taken.filter((_, at) => at !== number);
    const free = places.find(([left, top]) =>
      left >= 0 && top >= 0 && left + wide <= sheet.width && top + high <= sheet.height &&
      !others.some(other => overlap(other, [left, top, left + wide, top + high])));
    if (!free) return;
    const [left, top] = free;
    taken.push([left, top, left + wide, top + high]);
    placed.push({...label, left, top, colour: labels[face.label].colour, unsure: face.unsure});
  });
  return placed;
}

function overlap(one, other) {
  return Math.min(one[2], other[2]) > Math.max(one[0], other[0]) && Math.min(one[3], other[3]) > Math.max(one[1], other[1]);
}

/** Draw a text on a strip in the colour of its class; an unsure one has the colour around it. */
function drawLabel({pen, dots}, {text, size, left, top, wide, high, colour, unsure}, dark) {
  pen.fillStyle = unsure ? "#fff" : colour;
  pen.fillRect(left, top, wide, high);
  if (unsure) {
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5 * dots;
    pen.strokeRect(left + pen.lineWidth / 2, top + pen.lineWidth / 2, wide - pen.lineWidth, high - pen.lineWidth);
  }
  writeText(pen, text, size, left + 0.3 * size, top + high / 2, unsure ? dark : textOn(colour));
}

function writeText(pen, text, size, left, middle, colour) {
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  pen.fillStyle = colour;
  pen.fillText(text, left, middle);
}

/** Return the height in dots of what `drawCounts` draws. */
export function countsHeight(dots) {
  return Math.round(28 * dots);
}

/** Draw the number of faces by label, [{face, count}], as a strip below an image that is `top` high. */
export function drawCounts({pen, width, dots}, counts, {labels}, top) {
  const high = countsHeight(dots), size = high / 2;
  pen.fillStyle = "#fff";
  pen.fillRect(0, top, width, high);
  let left = size / 2;
  for (const {face, count} of counts) {
    const text = `${count} ${displayName(face, labels)}`, {colour} = labels[face.label];
    pen.font = `600 ${size}px system-ui, sans-serif`;
    const wide = pen.measureText(text).width + size;
    pen.fillStyle = colour;
    pen.fillRect(left, top + 0.3 * size, wide, 1.4 * size);
    writeText(pen, text, size, left + size / 2, top + high / 2, textOn(colour));
    left += wide + size / 2;
  }
}
