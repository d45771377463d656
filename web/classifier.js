// The mask classifier, as facemask/models/mask_classifier.py has it; `settings` are the facts in its file's metadata.

import {cropFace} from "./boxes.js";
import {toTensor} from "./image.js";

export class MaskClassifier {
  /** `run` takes {values, shape}, float32 (n, 3, size, size) RGB 0..255, and returns the values of (n, classes). */
  constructor(run, settings) {
    this.run = run;
    this.settings = settings;
    this.labels = settings.classes.filter((_, index) => index !== settings.background);
  }

  /** Return for each box of an image the probabilities of the labels, given a face, and the probability of a face. */
  async classify(image, boxes) {
    const {classes, background, input_size: size, margin, BATCH_SIZE} = this.settings;
    const results = [];
    for (let start = 0; start < boxes.length; start += BATCH_SIZE) {
      const crops = boxes.slice(start, start + BATCH_SIZE).map(box => cropFace(image, box, size, margin));
      const output = await this.run(toTensor(crops));
      crops.forEach((_, at) => {
        const row = Array.from(output.subarray(at * classes.length, (at + 1) * classes.length));
        const face = background === null ? 1 : Math.min(Math.max(1 - row[background], 0), 1);
        results.push({probabilities: this.ofLabels(row), face});
      });
    }
    return results;
  }

  /** Return the probabilities of the labels, summing to 1, by their names. */
  ofLabels(row) {
    const {background} = this.settings;
    const kept = row.filter((_, index) => index !== background);
    const total = background === null ? 1 : kept.reduce((sum, value) => sum + value, 0);
    return Object.fromEntries(this.labels.map((label, at) => [label, total > 0 ? kept[at] / total : 1 / kept.length]));
  }
}
