// Detect the faces in an image and classify their masks, as facemask/detector.py does; `settings` are its constants.

import {halve, round, shrink, turnBox, turnLeft} from "./image.js";

export class MaskDetector {
  constructor(faces, classifier, settings) {
    this.faces = faces;
    this.classifier = classifier;
    this.settings = settings;
  }

  /**
   * Detect and classify the faces in an image; returns them most confident first: {box, confidence, label, probability,
   * unsure, probabilities}. `confidence` is the minimum of a detection, `size` the longest side in px to which the face
   * detector scales the image; `tiles` and `turns` are whether small faces are inferred again in tiles, and whether turned images are.
   */
  async detect(image, {confidence = 0.5, size = this.faces.settings.size, tiles = true, turns = true} = {}) {
    const upright = await this.detectUpright(image, confidence, size, tiles, turns);
    return turnDetections(await this.classify(upright.image, upright.faces, confidence), -upright.turns, upright.image);
  }

  /** Detect in the image of a file as `detect` does; a large JPEG is reduced first, as Python decodes it. */
  async detectFile(image, isJpeg) {
    const {MIN_REDUCED_SIDE, MIN_REDUCED_FACE, REDUCTIONS} = this.settings, confidence = 0.5, {size} = this.faces.settings;
    const longest = isJpeg ? Math.max(image.width, image.height) : 0;
    const reduction = Math.max(...REDUCTIONS.filter(each => each === 1 || longest >= each * MIN_REDUCED_SIDE));
    if (reduction === 1) return this.detect(image);
    let reduced = image;
    for (let done = 1; done < reduction; done *= 2) reduced = halve(reduced);
    let upright = await this.detectUpright(reduced, confidence, size, true, true);
    if (upright.faces.some(({box}) => box[3] - box[1] < MIN_REDUCED_FACE)) {
      const whole = turnLeft(image, upright.turns);
      upright = {turns: upright.turns, image: whole, faces: await this.faces.detect(whole, confidence)};
      return turnDetections(await this.classify(whole, upright.faces, confidence), -upright.turns, whole);
    }
    const detections = await this.classify(upright.image, upright.faces, confidence);
    return turnDetections(detections, -upright.turns, upright.image).map(face => ({
      ...face,
      box: face.box.map((value, side) => Math.min(value * reduction, side % 2 ? image.height : image.width)),
    }));
  }

  /** Return the upright image, the quarter turns to the left that make it so, and the faces in it. */
  async detectUpright(image, confidence, size, tiles, mayTurn) {
    if (!mayTurn) return {turns: 0, image, faces: await this.faces.detect(image, confidence, size, tiles)};
    const {MIN_UPRIGHT_CONFIDENCE} = this.settings;
    let faces = await this.faces.detect(image, Math.min(confidence, MIN_UPRIGHT_CONFIDENCE), size, tiles);
    const turns = await this.findTurns(image, faces, size);
    if (turns) {
      image = turnLeft(image, turns);
      faces = await this.faces.detect(image, confidence, size, tiles);
    }
    return {turns, image, faces: faces.filter(face => face.confidence >= confidence)};
  }

  /** Return by how many quarter turns to the left an image must be turned to be upright, given the faces found in it. */
  async findTurns(image, faces, size) {
    const set = this.settings;
    faces = faces.filter(face => face.confidence >= set.MIN_UPRIGHT_CONFIDENCE);
    let turnScale = set.MAX_TURN_SCALE;
    if (faces.length) {
      const heights = faces.map(({box}) => ((box[3] - box[1]) * size) / Math.max(image.width, image.height));
      const weights = faces.map((face, at) => face.confidence * heights[at]);
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      const average = values => values.reduce((sum, value, at) => sum + value * weights[at], 0) / total;
      if (average(faces.map(face => face.confidence)) >= set.UPRIGHT_CONFIDENCE) return 0;
      turnScale = Math.min(Math.max(set.TURN_FACE / average(heights), set.MIN_TURN_SCALE), set.MAX_TURN_SCALE);
    }
    const side = round(size * turnScale), small = shrink(image, side);
    const evidence = [];
    for (const turns of [0, 1, 2, 3]) {
      const found = await this.faces.detect(turnLeft(small, turns), set.MIN_TURN_CONFIDENCE, side, false);
      evidence.push(found.reduce((sum, face) => sum + face.confidence ** 2, 0));
    }
    const best = [1, 2, 3].reduce((one, other) => (evidence[other] > evidence[one] ? other : one));
    return evidence[best] > set.MIN_TURN_EVIDENCE && evidence[best] > evidence[0] + set.MIN_TURN_EVIDENCE ? best : 0;
  }

  /** Classify the masks of faces; the classifier verifies each face, and those below `confidence` then are dropped. */
  async classify(image, faces, confidence) {
    const {UNSURE} = this.settings;
    const results = await this.classifier.classify(image, faces.map(face => face.box));
    return faces
      .map((face, at) => {
        const {probabilities, face: faceProbability} = results[at];
        const label = this.classifier.labels.reduce((one, other) => (probabilities[other] > probabilities[one] ? other : one));
        const verified = face.confidence * (1 - this.backgroundTrust(face.box) * (1 - faceProbability));
        const probability = probabilities[label];
        return {box: face.box, confidence: verified, label, probability, unsure: probability < UNSURE, probabilities};
      })
      .filter((detection, at) => detection.confidence >= Math.min(confidence, faces[at].confidence))
      .sort((one, other) => other.confidence - one.confidence);
  }

  /** Return the part of a confidence that the classifier can take: it grows with the longer side of the face's box. */
  backgroundTrust([x1, y1, x2, y2]) {
    const {BACKGROUND_TRUST: [low, high], BACKGROUND_TRUST_SIDES: [from, to]} = this.settings;
    const part = (Math.max(x2 - x1, y2 - y1) - from) / (to - from);
    return low + (high - low) * Math.min(Math.max(part, 0), 1);
  }
}

function turnDetections(detections, turns, image) {
  return detections.map(detection => ({...detection, box: turnBox(detection.box, turns, image)}));
}
