// Load both networks with onnxruntime-web, whose module is `ort`.

import {MaskClassifier} from "./classifier.js";
import {MaskDetector} from "./detector.js";
import {FaceDetector} from "./face_detector.js";

/** Return the MaskDetector of settings.json and the bytes of both networks. */
export async function createDetector(ort, settings, faceDetector, classifier) {
  const [runFaces, runClassifier] = [await open(ort, faceDetector), await open(ort, classifier)];
  const faces = new FaceDetector(runFaces, settings.face_detector);
  return new MaskDetector(faces, new MaskClassifier(runClassifier, settings.classifier), settings.detector);
}

/** Return the function that runs a network: {values, shape} of its one input -> the values of its one output. */
async function open(ort, data) {
  const session = await ort.InferenceSession.create(data, {executionProviders: ["wasm"]});
  const [input] = session.inputNames, [output] = session.outputNames;
  return async ({values, shape}) => (await session.run({[input]: new ort.Tensor("float32", values, shape)}))[output].data;
}
