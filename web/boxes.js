// Boxes, [x1, y1, x2, y2] in pixels, as facemask/boxes.py has them.

import {crop, resizeArea, resizeLinear, round} from "./image.js";

/** Return the intersection over union of two boxes. */
export function iou(one, other) {
  const wide = Math.max(Math.min(one[2], other[2]) - Math.max(one[0], other[0]), 0);
  const high = Math.max(Math.min(one[3], other[3]) - Math.max(one[1], other[1]), 0);
  const area = box => (box[2] - box[0]) * (box[3] - box[1]);
  return (wide * high) / (area(one) + area(other) - wide * high);
}

/** Drop weak faces and faces that overlap a more confident one; most confident first. A face is {box, confidence}. */
export function nms(faces, minConfidence, threshold, maxCandidates, maxFaces) {
  const candidates = faces
    .filter(face => face.confidence >= minConfidence && face.box.every(Number.isFinite))
    .sort((one, other) => other.confidence - one.confidence)
    .slice(0, maxCandidates);
  const kept = [];
  for (const face of candidates) {
    if (kept.length === maxFaces) break;
    if (kept.every(other => iou(face.box, other.box) <= threshold)) kept.push(face);
  }
  return kept;
}

/** Round the boxes of faces to pixels and clip them to an image; those that are empty then are dropped. */
export function clipFaces(faces, width, height) {
  const clip = (value, limit) => Math.min(Math.max(round(value), 0), limit);
  return faces
    .map(face => ({...face, box: face.box.map((value, at) => clip(value, at % 2 ? height : width))}))
    .filter(({box}) => box[2] > box[0] && box[3] > box[1]);
}

/** Crop a face as the classifier takes it: a square of `size` px around the box, widened by `margin` of its longer side. */
export function cropFace(image, [x1, y1, x2, y2], size, margin) {
  const half = Math.max(x2 - x1, y2 - y1) * (0.5 + margin);
  const centreX = (x1 + x2) / 2, centreY = (y1 + y2) / 2;
  const left = round(Math.min(Math.max(centreX - half, 0), image.width - 1));
  const top = round(Math.min(Math.max(centreY - half, 0), image.height - 1));
  const right = Math.max(round(Math.min(centreX + half, image.width)), left + 1);
  const bottom = Math.max(round(Math.min(centreY + half, image.height)), top + 1);
  const face = crop(image, left, top, right, bottom);
  return (Math.min(face.width, face.height) > size ? resizeArea : resizeLinear)(face, size, size);
}
