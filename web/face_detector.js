// The face detector, as facemask/models/center_face.py has it; `settings` are its constants, by their names in Python.

import {clipFaces, iou, nms} from "./boxes.js";
import {blur, crop, halve, resizeLinear, round, toTensor} from "./image.js";

const sigmoid = value => 1 / (1 + Math.exp(-Math.min(Math.max(value, -60), 60)));
const logit = probability => Math.log(probability / (1 - probability));
const clip = (value, low, high) => Math.min(Math.max(value, low), high);
const heightOf = ({box}) => box[3] - box[1];

export class FaceDetector {
  /** `run` takes {values, shape}, float32 (n, 3, H, W) RGB 0..255, and returns the values of (n, 5, H/4, W/4). */
  constructor(run, settings) {
    this.run = run;
    this.settings = settings;
  }

  /**
   * Detect the faces in an image; returns [{box, confidence}], most confident first. `size` is the longest side in px to
   * which the image is scaled; with `tiles` the parts with small faces are inferred again, enlarged.
   */
  async detect(image, confidence, size = this.settings.size, tiles = true) {
    const set = this.settings, scale = size / Math.max(image.width, image.height);
    const minConfidence = tiles ? Math.min(confidence, set.MIN_EXPECTED_CONFIDENCE) : confidence;
    const {resized, factors} = this.resize(image, scale);
    let faces = scaleFaces((await this.infer([resized], minConfidence))[0], factors);
    if (tiles) faces = await this.inferTiles(image, scale, faces, minConfidence);
    const large = await this.inferDownscaled(resized, confidence);
    faces = [...faces, ...scaleFaces(large, factors)];
    faces = nms(faces, confidence, set.IOU_THRESHOLD, Math.max(set.MAX_CANDIDATES, 2 * set.max_faces), set.max_faces);
    return clipFaces(faces, image.width, image.height);
  }

  /** Scale an image by about `scale`, to sides that are multiples of MULTIPLE if they stretch little. */
  resize(image, scale) {
    const {MULTIPLE, MAX_STRETCH} = this.settings;
    const [width, height] = [image.width, image.height].map(side => {
      const scaled = side * scale, fitting = Math.floor(scaled / MULTIPLE + 0.5) * MULTIPLE;
      return Math.abs(fitting / scaled - 1) <= MAX_STRETCH ? fitting : Math.max(round(scaled), 1);
    });
    return {resized: this.scale(image, scale, width, height), factors: [width / image.width, height / image.height]};
  }

  /** Scale an image by `scale`: it is halved while it can be, then blurred and interpolated. */
  scale(image, scale, width, height) {
    const {PIXEL_SIGMA, MIN_UNBLURRED_SCALE} = this.settings;
    for (; scale <= 0.5 && Math.min(image.width, image.height) > 1; scale *= 2) image = halve(image);
    if (scale < MIN_UNBLURRED_SCALE) image = blur(image, PIXEL_SIGMA * Math.sqrt(1 / scale ** 2 - 1));
    return resizeLinear(image, width, height);
  }

  /** Run the network on images of one size; returns the faces of each. */
  async infer(images, confidence) {
    const {MULTIPLE, MIN_INPUT, STRIDE} = this.settings;
    const [width, height] = [images[0].width, images[0].height].map(side =>
      Math.max(Math.ceil(side / MULTIPLE) * MULTIPLE, MIN_INPUT));
    const output = await this.run(toTensor(images, width, height));
    const columns = width / STRIDE, rows = height / STRIDE, length = 5 * columns * rows;
    return images.map((_, at) => this.decode(output.subarray(at * length, (at + 1) * length), columns, rows, confidence));
  }

  /** Detect faces too large for the network in an image of its size, at smaller scales. */
  async inferDownscaled(image, confidence) {
    const {MIN_DOWNSCALED_SIDE, DOWNSCALE, MIN_LARGE_FACE} = this.settings;
    const all = [];
    let total = [1, 1];
    while (Math.max(image.width, image.height) > MIN_DOWNSCALED_SIDE) {
      const {resized, factors} = this.resize(image, DOWNSCALE);
      image = resized;
      total = total.map((factor, at) => factor * factors[at]);
      const faces = (await this.infer([image], confidence))[0];
      all.push(...scaleFaces(faces.filter(face => heightOf(face) >= MIN_LARGE_FACE), total));
    }
    return all;
  }

  /** Replace the small ones of `faces`, found at `scale`, by those of enlarged tiles in which some are expected. */
  async inferTiles(image, scale, faces, confidence) {
    const set = this.settings;
    let tilesPerSide = 1;
    while (scale * set.ZOOM <= set.MAX_SCALE) {
      const before = scale;
      scale *= set.ZOOM;
      tilesPerSide *= set.ZOOM;
      const width = Math.max(1, round(image.width * scale)), height = Math.max(1, round(image.height * scale));
      const replaced = new Set(), windows = [];
      for (const window of tileWindows(width, height, tilesPerSide, set.TILE_OVERLAP, set.MULTIPLE)) {
        const inside = faces.filter(face => heightOf(face) * before < set.MAX_SMALL_FACE && isInside(face.box, scale, window));
        if (inside.reduce((sum, face) => sum + face.confidence, 0) < set.MIN_EXPECTED_FACES) continue;
        inside.forEach(face => replaced.add(face));
        windows.push(window);
      }
      if (!windows.length) break;
      const enlarged = this.scale(image, scale, width, height);
      faces = faces.filter(face => !replaced.has(face));
      for (let start = 0; start < windows.length; start += set.TILE_BATCH) {
        const batch = windows.slice(start, start + set.TILE_BATCH);
        const found = await this.infer(batch.map(window => crop(enlarged, ...window)), confidence);
        batch.forEach(([left, top], at) => {
          // Larger faces were found at the scale before, and may be cut by a tile's edge.
          for (const face of found[at].filter(each => heightOf(each) < set.MAX_SMALL_FACE * set.ZOOM * 1.2)) {
            faces.push({...face, box: face.box.map((value, side) => (value + (side % 2 ? top : left)) / scale)});
          }
        });
      }
    }
    return faces;
  }

  /**
   * Return the faces of one output (5, rows, columns): scores as logits, offsets y and x in cells, and the logarithms of
   * height and width in cells. A peak's box is the mean of the boxes that the cells around it predict.
   */
  decode(output, columns, rows, confidence) {
    const set = this.settings, cells = rows * columns, minLogit = logit(set.MIN_SCORE), faces = [];
    const values = withoutInfinities(output, cells, set.BACKGROUND);
    const half = value => Math.exp(clip(value, -5, 8)) / 2;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const at = row * columns + column;
        if (!(values[at] >= minLogit && isPeak(values, row, column, rows, columns))) continue;
        const size = Math.exp((clip(values[3 * cells + at], -5, 8) + clip(values[4 * cells + at], -5, 8)) / 2);
        const radius = Math.min(Math.max(set.VOTE_RADIUS * size, set.MIN_VOTE_RADIUS), set.MAX_VOTE_RADIUS);
        const reach = Math.floor(radius), voters = [];
        let total = 0;
        for (let y = Math.max(row - reach, 0); y <= Math.min(row + reach, rows - 1); y++) {
          for (let x = Math.max(column - reach, 0); x <= Math.min(column + reach, columns - 1); x++) {
            if (Math.hypot(y - row, x - column) > radius) continue;
            const cell = y * columns + x;
            const centreY = y + 0.5 + clip(values[cells + cell], -set.MAX_OFFSET, set.MAX_OFFSET);
            const centreX = x + 0.5 + clip(values[2 * cells + cell], -set.MAX_OFFSET, set.MAX_OFFSET);
            const halfHeight = half(values[3 * cells + cell]), halfWidth = half(values[4 * cells + cell]);
            const weight = sigmoid(values[cell]);
            voters.push({weight, box: [centreX - halfWidth, centreY - halfHeight, centreX + halfWidth, centreY + halfHeight]});
            total += weight;
          }
        }
        const box = [0, 1, 2, 3].map(side => voters.reduce((sum, voter) => sum + voter.weight * voter.box[side], 0) / total);
        const agreement = voters.reduce((sum, voter) => sum + voter.weight * iou(voter.box, box), 0) / total;
        const peak = sigmoid(values[at]), peakiness = (peak * voters.length) / total;
        const score = clip(peak * agreement * peakiness ** set.PEAKINESS_EXPONENT, set.MIN_DECODED_SCORE, set.MAX_DECODED_SCORE);
        const probability = sigmoid(set.slope * logit(score) + set.shift);
        if (probability >= confidence) faces.push({box: box.map(value => value * set.STRIDE), confidence: probability});
      }
    }
    return faces;
  }
}

/** Return whether no neighbour of a cell has a higher score. */
function isPeak(values, row, column, rows, columns) {
  const score = values[row * columns + column];
  for (let y = Math.max(row - 1, 0); y <= Math.min(row + 1, rows - 1); y++) {
    for (let x = Math.max(column - 1, 0); x <= Math.min(column + 1, columns - 1); x++) {
      if (values[y * columns + x] > score) return false;
    }
  }
  return true;
}

/** Return an output whose cells with a value that is not finite are those of no face. */
function withoutInfinities(output, cells, background) {
  if (output.every(Number.isFinite)) return output;
  const values = output.slice();
  for (let cell = 0; cell < cells; cell++) {
    if (background.every((_, channel) => Number.isFinite(output[channel * cells + cell]))) continue;
    background.forEach((value, channel) => (values[channel * cells + cell] = value));
  }
  return values;
}

/** Return faces of an image that was scaled by factors [x, y] as those in the image before. */
function scaleFaces(faces, factors) {
  return faces.map(face => ({...face, box: face.box.map((value, side) => value / factors[side % 2])}));
}

/** Return the windows of count x count tiles of one size that cover an image, with that overlap in px at least. */
export function tileWindows(width, height, count, overlap, multiple) {
  const [tileWidth, tileHeight] = [width, height].map(side =>
    Math.min(Math.ceil((side / count + overlap) / multiple) * multiple, side));
  const starts = length => Array.from({length: count}, (_, at) => round((length * at) / (count - 1)));
  const windows = [];
  for (const top of starts(height - tileHeight)) {
    for (const left of starts(width - tileWidth)) windows.push([left, top, left + tileWidth, top + tileHeight]);
  }
  return windows;
}

function isInside(box, scale, [left, top, right, bottom]) {
  const x = ((box[0] + box[2]) / 2) * scale, y = ((box[1] + box[3]) / 2) * scale;
  return x >= left && x < right && y >= top && y < bottom;
}
